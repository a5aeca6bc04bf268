"""Phone books, read line by line."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.phonebook import NAMES, Phonebook, PhonebookConfig


def make(**options: Any) -> Phonebook:
    task = Phonebook(PhonebookConfig(**options))
    task.check()
    return task


def read(task: Phonebook, size: int) -> list[tuple[str, str]]:
    """Prompt and answer of each sequence; the answer goes on in the input too, each digit after it was asked for."""
    batch = task.batch("test", 0, size)
    found = []
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        asked = (targets != IGNORE).nonzero().flatten().tolist()
        prompt, answer = task.decode(inputs[: asked[0] + 1]), task.decode(targets[asked])
        assert task.decode(inputs[asked[0] + 1 :]).rstrip("*") in (answer, answer[:-1])
        found.append((prompt, answer))
    return found


@pytest.mark.parametrize(("entries", "shots"), [(20, 2), (4, 3), (2, 0)])
def test_a_book_is_what_the_source_writes_and_the_answer_is_in_it(entries: int, shots: int) -> None:
    for prompt, answer in read(make(entries=entries, shots=shots, validation_examples=300), 300):
        parts = prompt.split("\n\n")
        lines = parts[0].split("\n")
        book = dict(line.split(": ") for line in lines)
        assert len(lines) == len(book) == entries
        assert set(book) <= set(NAMES)
        assert all(re.fullmatch(r"[6-9]\d{9}", number) for number in book.values())
        shown = parts[1].split("\n") if shots else []
        assert len(set(shown)) == shots
        assert set(shown) <= set(lines)
        name = parts[-1].removesuffix(": ")
        assert len(parts) == 2 + (shots > 0)
        assert book[name] == answer
        assert not any(line.startswith(f"{name}:") for line in shown)


def test_each_line_is_asked_for_alike_and_digits_are_uniform() -> None:
    found = read(make(entries=8, validation_examples=2000), 2000)
    places, digits = [], []
    for prompt, answer in found:
        names = [line.split(":")[0] for line in prompt.split("\n")[:8]]
        places.append(names.index(prompt.rsplit("\n", 1)[1].split(":")[0]))
        digits.append(answer[1:])
    assert stats.chisquare(np.bincount(places, minlength=8)).pvalue > 1e-3
    assert stats.chisquare([list(itertools.chain(*digits)).count(str(d)) for d in range(10)]).pvalue > 1e-3
    first = [answer[0] for _, answer in found]
    assert stats.chisquare([first.count(d) for d in "6789"]).pvalue > 1e-3


def test_the_longest_book_fits_and_no_shorter_one_would_do() -> None:
    task = make(entries=3, shots=2)
    longest = max(NAMES, key=len)
    book = "".join(f"{longest}: 6000000000\n" for _ in range(3)) + "\n"
    whole = book + f"{longest}: 6000000000\n" * 2 + "\n" + f"{longest}: 6000000000"
    assert task.sequence_length == len(whole) - 1


def test_larger_books_are_tested_too_and_bad_ones_are_named() -> None:
    sets = make(test_entries=(5, 40)).evaluation_sets()
    assert [len(read(task, 2)[0][0].split("\n\n")[0].split("\n")) for task in sets.values()] == [5, 40]
    for options, place in [({"entries": 2}, "entries"), ({"test_entries": (2, 5)}, "test_entries")]:
        with pytest.raises(SpecError) as error:
            make(**options).evaluation_sets()
        assert error.value.place == f"task.options.{place}"

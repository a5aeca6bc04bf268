"""Copying against the source's way of packing strings, read back sign by sign."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from chimeralab.contracts import IGNORE, Evaluation
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.copy import Copy, CopyConfig


def make(**options: Any) -> Copy:
    task = Copy(CopyConfig(**options))
    task.check()
    return task


def read(task: Copy, split: Any, size: int) -> list[tuple[str, list[bool]]]:
    """Each sequence as text, the last token that only targets hold included, and which letters are asked for."""
    batch = task.batch(split, 0, size)
    found = []
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        asked = [False, *(targets != IGNORE).tolist()]
        following = torch.cat([inputs[1:], targets[-1:].clamp(min=0)])
        assert torch.equal(targets[asked[1:]], following[asked[1:]])
        found.append((task.decode(inputs) + (task.decode(targets[-1:]) if asked[-1] else ""), asked))
    return found


def test_training_packs_strings_and_their_copies_and_counts_whole_copies() -> None:
    task = make(min_length=2, max_length=7, sequence_length=40, letters=5)
    lengths = []
    for text, asked in read(task, "train", 400):
        whole = list(re.finditer(r"\$([a-e]{2,7})\|\1\.", text))
        assert "".join(match[0] for match in whole) == text[: whole[-1].end()]
        wanted = np.zeros(len(text), bool)
        for match in whole:
            bar = match.start() + len(match[1]) + 1
            wanted[bar + 1 : match.end()] = True
            lengths.append(len(match[1]))
        assert asked[: len(text)] == wanted.tolist()
        rest = text[whole[-1].end() :]
        assert rest == "" or re.fullmatch(r"\$[a-e]*(\|[a-e]*)?", rest)
        assert "*" not in text
    assert set(lengths) == set(range(2, 8))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_sequences_are_one_string_whose_letters_are_counted(split: Any) -> None:
    task = make(validation_examples=1000)
    found = [(re.fullmatch(r"\$([a-z]+)\|\1\.\**", text), asked) for text, asked in read(task, split, 1000)]
    for match, asked in found:
        assert match
        n = len(match[1])
        assert [i for i, one in enumerate(asked) if one] == list(range(n + 2, 2 * n + 2))
    lengths = np.bincount([len(match[1]) for match, _ in found if match], minlength=51)
    assert lengths[:20].sum() == 0
    assert stats.chisquare(lengths[20:]).pvalue > 1e-3
    letters = "".join(match[1] for match, _ in found if match)
    assert stats.chisquare([letters.count(letter) for letter in set(letters)]).pvalue > 1e-3


def test_a_length_to_test_on_is_that_of_all_its_strings() -> None:
    for place, task in make(test_lengths=(7, 300)).evaluation_sets().items():
        n = int(place.removeprefix("length="))
        for text, _ in read(task, "test", 5):
            assert re.fullmatch(rf"\$([a-z]{{{n}}})\|\1\.?", text)


def test_exact_match_counts_strings_without_a_wrong_letter() -> None:
    task = make(validation_examples=3, letters=4, min_length=2, max_length=3, sequence_length=9)
    batch = task.batch("test", 0, 4)
    logits = torch.nn.functional.one_hot(batch.targets.clamp(min=0), task.vocab_size).float()
    logits[0, int((batch.targets[0] != IGNORE).nonzero()[0])] *= -1
    total = task.measure(logits, batch) + Evaluation()
    letters = int((batch.targets != IGNORE).sum())
    assert task.metrics(total)["exact_match"] == pytest.approx(2 / 3)
    assert task.metrics(total)["accuracy"] == pytest.approx((letters - 1) / letters)


def test_chance_is_what_a_guess_scores() -> None:
    task = make(letters=2, min_length=2, max_length=3, sequence_length=8, validation_examples=20_000)
    batch = task.batch("test", 0, 20_000)
    guess = torch.rand(*batch.inputs.shape, task.vocab_size, generator=torch.Generator().manual_seed(0)) / 1e3
    guess[..., 2:] = -torch.inf
    found = task.metrics(task.measure(guess, batch))
    assert found == pytest.approx(task.chance(), abs=0.01)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"min_length": 51}, "min_length"),
        ({"max_length": 110}, "sequence_length"),
        ({"test_lengths": (0,)}, "test_lengths"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], place: str) -> None:
    with pytest.raises(SpecError) as error:
        make(**options).evaluation_sets()
    assert error.value.place == f"task.options.{place}"

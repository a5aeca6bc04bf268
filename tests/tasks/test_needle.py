"""Haystacks, read as text: where the needle is, what is asked, what the rest is made of."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.needle import CITIES, WORDS, Needle, NeedleConfig

SENTENCE = re.compile(r"The number of ([A-Z][a-z]+) is (\d{7})\. ")


def make(**options: Any) -> Needle:
    task = Needle(NeedleConfig(**options))
    task.check()
    return task


def read(task: Needle, size: int, split: Any = "train") -> list[tuple[str, str, str]]:
    """Text, city that is asked for, and answer."""
    batch = task.batch(split, 0, size)
    found = []
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        asked = (targets != IGNORE).nonzero().flatten().tolist()
        assert asked == list(range(len(targets) - 7, len(targets)))
        answer = task.decode(targets[asked])
        match = re.fullmatch(r"(.*) What is the number of ([A-Z][a-z]+)\? It is (\d{6})", task.decode(inputs))
        assert match
        assert match[3] == answer[:6]
        found.append((match[1], match[2], answer))
    return found


@pytest.mark.parametrize(("length", "distractors"), [(192, 0), (256, 2), (1024, 5)])
def test_the_answer_stands_in_the_text_among_others_and_the_rest_is_words(length: int, distractors: int) -> None:
    whole = 0
    for text, city, answer in read(make(sequence_length=length, distractors=distractors), 200):
        said = dict(SENTENCE.findall(text))
        assert said[city] == answer
        assert len(SENTENCE.findall(text)) == len(said) <= 1 + distractors
        assert set(said) <= set(CITIES)
        whole += len(said)
        rest = SENTENCE.sub("", text)
        words = re.findall(r"[a-z]+", re.sub(r"(The .*|\S*)$", "", rest))
        assert set(words) <= set(WORDS)
        assert re.fullmatch(r"([a-z]+\.? )*([a-z]+\.?|The( [A-Za-z0-9 .]*)?|T|Th)?", rest), rest
    assert whole >= 200 * (1 + 0.7 * distractors)


@pytest.mark.parametrize("length", [256, 1024])
def test_the_needle_is_at_the_first_word_past_its_depth(length: int) -> None:
    for depth in (0.0, 0.3, 1.0):
        for text, city, answer in read(make(sequence_length=length, depth=depth, distractors=0), 100):
            needle = f"The number of {city} is {answer}. "
            latest = len(text) - len(needle)
            place = text.index(needle)
            if depth == 1.0:
                assert latest - 9 <= place <= latest  # the longest word has eight letters, a full stop and a blank
            else:
                assert 0 <= place - int(depth * latest) <= 10
            assert place == 0 or text[place - 1] == " "


def test_without_a_depth_every_depth_is_alike() -> None:
    depths = []
    for text, city, answer in read(make(sequence_length=1024, distractors=0), 500):
        needle = f"The number of {city} is {answer}. "
        depths.append(text.index(needle) / (len(text) - len(needle)))
    assert stats.kstest(depths, "uniform").pvalue > 1e-3


def test_words_follow_zipf_s_law() -> None:
    found = read(make(sequence_length=4096, distractors=0), 50)
    words = Counter(word for text, *_ in found for word in SENTENCE.sub("", text).replace(".", "").split()[:-1])
    weight = 1 / np.arange(1, len(WORDS) + 1)
    seen = np.array([words[word] for word in WORDS])
    wanted = seen.sum() * weight / weight.sum()
    assert stats.chisquare(seen, wanted).pvalue > 1e-4
    assert len(set(WORDS)) == len(WORDS)


def test_the_grid_is_depth_by_length_and_bad_places_are_named() -> None:
    sets = make(test_depths=(0, 0.5), test_lengths=(256, 512)).evaluation_sets()
    assert list(sets) == [f"depth={depth},length={length}" for depth in (0.0, 0.5) for length in (256, 512)]
    assert [(task.config.depth, task.sequence_length) for task in sets.values()] == [
        (0, 256),
        (0, 512),
        (0.5, 256),
        (0.5, 512),
    ]
    for options, place in [
        ({"sequence_length": 100}, "sequence_length"),
        ({"test_lengths": (100, 256)}, "test_lengths"),
        ({"test_depths": (0.5, 1.5)}, "test_depths"),
    ]:
        with pytest.raises(SpecError) as error:
            make(**options).evaluation_sets()
        assert error.value.place == f"task.options.{place}"

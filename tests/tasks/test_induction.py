"""Induction heads against a generator written from Safari's definition, token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.induction import Induction, InductionConfig


def make(**options: Any) -> Induction:
    return Induction(InductionConfig(**options))


def slow(rng: np.random.Generator, ordinary: int, input_seq_len: int) -> tuple[list[int], int]:
    """A sequence and its answer as Safari makes them; the special token is `ordinary`."""
    sequence = [int(rng.integers(ordinary)) for _ in range(input_seq_len)] + [ordinary]
    place = int(rng.integers(input_seq_len - 2))
    answer = sequence[place + 1]
    sequence[place] = ordinary
    return sequence, answer


def test_the_answer_is_what_followed_the_special_token_and_statistics_are_the_source_s() -> None:
    V, L, n = 6, 9, 4000
    batch = make(vocab_size=V, sequence_length=L, validation_examples=n).batch("test", 0, n)
    ours = []
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        first = inputs.index(V - 1)
        assert [i for i, token in enumerate(inputs) if token == V - 1] == [first, L - 1]
        assert [i for i, target in enumerate(targets) if target != IGNORE] == [L - 1]
        assert targets[-1] == inputs[first + 1]
        ours.append((inputs, targets[-1]))
    rng = np.random.default_rng(0)
    theirs = [slow(rng, V - 1, L - 1) for _ in range(n)]
    for count in (
        lambda tokens, answer: tokens.index(V - 1),
        lambda tokens, answer: answer,
        lambda tokens, answer: tokens[3],
        lambda tokens, answer: tokens.count(2),
    ):
        seen = [np.bincount([count(*one) for one in some], minlength=L) for some in (ours, theirs)]
        table = np.array(seen)[:, np.sum(seen, 0) > 20]
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_training_may_predict_every_next_token() -> None:
    task = make(every_token=True, sequence_length=12)
    batch = task.batch("train", 0, 16)
    assert torch.equal(batch.targets[:, :-1], batch.inputs[:, 1:])
    assert task.causal
    assert not make().causal
    assert ((task.batch("validation", 0, 16).targets != IGNORE).sum(1) == 1).all()


def test_lengths_to_test_on_go_from_short_to_long() -> None:
    sets = make(test_lengths=(4, 65_536)).evaluation_sets()
    assert [task.batch("test", 0, 1).inputs.shape[1] for task in sets.values()] == [4, 65_536]
    assert list(make().evaluation_sets())[-1] == "length=4096"
    with pytest.raises(SpecError) as error:
        make(test_lengths=(3,)).evaluation_sets()
    assert error.value.place == "task.options.test_lengths"

"""Text whose hidden tokens are the targets."""

from __future__ import annotations

from pathlib import Path

import torch
from texts import prepared

from chimeralab.contracts import IGNORE


def test_hidden_tokens_are_the_targets_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    hidden, plain = (prepared(folder, tmp_path, mask=mask) for mask in (0.3, 0.0))
    for split in ("train", "validation"):
        masked, whole = (task.batch(split, 2, 40) for task in (hidden, plain))
        gone = masked.inputs == 256
        counted = masked.targets != IGNORE
        assert torch.equal(counted, gone & (whole.targets != IGNORE))
        assert torch.equal(masked.targets[counted], whole.inputs[counted])
        assert torch.equal(masked.inputs[~gone], whole.inputs[~gone])
        assert gone.any(1).all()
        assert 0.2 < gone.double().mean() < 0.4


def test_a_masked_text_has_an_id_more_and_is_not_causal(folder: Path, tmp_path: Path) -> None:
    hidden, plain = (prepared(folder, tmp_path, mask=mask) for mask in (0.15, 0.0))
    assert (hidden.vocab_size, plain.vocab_size) == (257, 256)
    assert (hidden.causal, plain.causal) == (False, True)
    assert hidden.prompts() == []
    assert hidden.describe() == plain.describe()
    assert len([*(tmp_path / "text").iterdir()]) == 1, "the tokens are the same: they are kept once"


def test_validation_hides_the_same_tokens_for_every_seed(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path, mask=0.15)
    first, other = (task.batch("validation", 1, 4, seed=seed, rank=seed) for seed in (0, 1))
    assert torch.equal(first.inputs, other.inputs)
    again = task.batch("validation", 1 + task.evaluation_steps(4), 4)
    assert torch.equal(first.inputs, again.inputs)
    one, two = task.batch("train", 0, 4).inputs == 256, task.batch("train", 1, 4).inputs == 256
    assert not torch.equal(one, two)

"""MQAR against a validator written from the definition, and its distributions against exact probabilities."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.mqar import Mqar, MqarConfig

SMALL = {"vocab_size": 64, "sequence_length": 32, "pairs": 4, "train_examples": 40, "validation_examples": 10}


def task(**options: object) -> Mqar:
    made = Mqar(MqarConfig(**{**SMALL, **options}))
    made.check()
    return made


def broken_rule(inputs: list[int], targets: list[int], V: int, K: int) -> str:
    """The first rule of MQAR that a sequence breaks, read off the definition one token at a time."""
    value_of: dict[int, int] = {}
    for pair in range(K):
        key, value = inputs[2 * pair], inputs[2 * pair + 1]
        if not 1 <= key < V // 2:
            return f"key {key} out of range"
        if not V // 2 <= value < V:
            return f"value {value} out of range"
        if key in value_of or value in value_of.values():
            return "a key or a value is there twice"
        value_of[key] = value
    asked = []
    for place, (token, target) in enumerate(zip(inputs, targets, strict=True)):
        if target == IGNORE:
            if place >= 2 * K and token != 0:
                return f"place {place} holds {token}, not a filler"
            continue
        if place < 2 * K or place % 2:
            return f"a query stands at place {place}"
        if value_of.get(token) != target:
            return f"the target of {token} is {target}"
        asked.append(token)
    if sorted(asked) != sorted(value_of):
        return f"asked for {asked}"
    return ""


@pytest.mark.parametrize(
    ("V", "L", "K"), [(8192, 64, 4), (8192, 256, 16), (8192, 512, 64), (10, 16, 4), (12, 20, 5), (13, 16, 2)]
)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_sequences_follow_the_definition(V: int, L: int, K: int, split: str) -> None:
    mqar = task(vocab_size=V, sequence_length=L, pairs=K, random_non_queries=False, validation_examples=32)
    batch = mqar.batch(split, 1, 16)
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert broken_rule(inputs, targets, V, K) == ""


def test_random_fillers_change_the_fillers_alone_and_are_uniform() -> None:
    size = {"train_examples": 4000}
    plain, filled = (task(random_non_queries=r, **size).batch("train", 0, 4000) for r in (False, True))
    assert torch.equal(plain.targets, filled.targets)
    fillers = plain.inputs == 0
    assert torch.equal(plain.inputs[~fillers], filled.inputs[~fillers])
    counts = np.bincount(filled.inputs[fillers].numpy(), minlength=64)
    assert stats.chisquare(counts).pvalue > 0.001


def test_query_slots_follow_the_power_law_without_replacement() -> None:
    mqar = task(sequence_length=32, pairs=2, power_a=0.3, train_examples=20_000)
    batch = mqar.batch("train", 0, 20_000)
    slots = (32 - 4) // 2
    p = np.arange(1, slots + 1) ** (0.3 - 1.0)
    p /= p.sum()
    # The second key takes slot i when the first took another: p_i Σ_{j≠i} p_j / (1 - p_j).
    second = np.array([p[i] * sum(p[j] / (1 - p[j]) for j in range(slots) if j != i) for i in range(slots)])
    for pair, expected in enumerate((p, second)):
        value = batch.inputs[:, 2 * pair + 1, None]
        place = (batch.targets == value).int().argmax(1).numpy()
        observed = np.bincount((place - 4) // 2, minlength=slots)
        assert stats.chisquare(observed, expected * 20_000).pvalue > 0.001


def test_keys_and_values_are_uniform() -> None:
    batch = task(train_examples=20_000).batch("train", 0, 20_000)
    keys = np.bincount(batch.inputs[:, 6].numpy(), minlength=32)[1:32]  # the last key, after three swaps
    values = np.bincount(batch.inputs[:, 7].numpy(), minlength=64)[32:]
    assert stats.chisquare(keys).pvalue > 0.001
    assert stats.chisquare(values).pvalue > 0.001


def test_an_epoch_holds_every_training_sequence_once() -> None:
    def epoch(number: int, seed: int = 0, rank: int = 0) -> list[tuple[int, ...]]:
        steps = [mqar.batch("train", 5 * number + i, 8, seed=seed, rank=rank).inputs for i in range(5)]
        return [tuple(row) for row in torch.cat(steps).tolist()]

    mqar = task()
    first = epoch(0)
    assert len(set(first)) == 40
    for other in (epoch(1), epoch(0, seed=1), epoch(0, rank=1)):
        assert other != first
        assert sorted(other) == sorted(first)


def test_a_batch_across_two_epochs_takes_from_both() -> None:
    mqar = task()
    wide = torch.cat([mqar.batch("train", i, 16).inputs for i in range(5)])
    narrow = torch.cat([mqar.batch("train", i, 8).inputs for i in range(10)])
    assert torch.equal(wide, narrow)


def test_validation_counts_every_sequence_once_whatever_the_batch_size() -> None:
    mqar = task()
    for size in (1, 4, 7, 16):
        steps = mqar.evaluation_steps(size)
        batches = [mqar.batch("validation", step, size, seed=step, rank=step) for step in range(steps)]
        counted = torch.cat([b.inputs[(b.targets != IGNORE).any(1)] for b in batches])
        assert len(counted) == len(counted.unique(dim=0)) == 10
        assert torch.equal(mqar.batch("validation", steps, size).inputs, batches[0].inputs)


def test_splits_and_data_seeds_hold_different_sequences() -> None:
    batches = [
        task(data_seed=s).batch(split, 0, 10).inputs for s in (0, 1) for split in ("train", "validation", "test")
    ]
    rows = torch.cat(batches)
    assert len(rows.unique(dim=0)) == len(rows)


def test_another_process_gives_the_same_batch() -> None:
    code = f"from chimeralab_plugins.tasks.mqar import Mqar, MqarConfig\nm = Mqar(MqarConfig(**{SMALL!r}))\n"
    code += "print(m.batch('train', 3, 5, seed=9, rank=1).inputs.tolist())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(task().batch("train", 3, 5, seed=9, rank=1).inputs.tolist())


def test_a_guess_among_the_values_scores_the_stated_chance() -> None:
    mqar = task(train_examples=2000)
    batch = mqar.batch("train", 0, 2000)
    logits = torch.zeros(2000, 32, 64)
    logits[..., :32] = -torch.inf
    logits[..., 32 + 5] = 1e-4
    found, chance = mqar.metrics(mqar.measure(logits, batch)), mqar.chance()
    assert found["accuracy"] == pytest.approx(chance["accuracy"], abs=0.006)
    assert found["loss"] == pytest.approx(chance["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"sequence_length": 33}, "task.options.sequence_length"),
        ({"sequence_length": 14}, "task.options.sequence_length"),
        ({"vocab_size": 9}, "task.options.vocab_size"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, int], place: str) -> None:
    with pytest.raises(SpecError) as error:
        task(**options)
    assert error.value.place == place


def test_the_remedies_work() -> None:
    task(sequence_length=16)
    task(vocab_size=10)


def test_evaluation_sets_are_the_grid_of_lengths_and_pairs_that_fit() -> None:
    sets = task(test_lengths=(16, 64), test_pairs=(4, 8), random_non_queries=False).evaluation_sets()
    assert list(sets) == ["length=16,pairs=4", "length=64,pairs=4", "length=64,pairs=8"]
    batch = sets["length=64,pairs=8"].batch("test", 0, 4)
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert broken_rule(inputs, targets, sets["length=64,pairs=8"].vocab_size, 8) == ""
    assert list(task(test_pairs=(1, 2)).evaluation_sets()) == ["pairs=1", "pairs=2"]
    assert not task().evaluation_sets()


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ({"test_lengths": (16, 64), "test_pairs": (4, 17)}, "test_pairs", "^17: 17 pairs and their queries do not fit"),
        ({"test_lengths": (12,), "test_pairs": (4,)}, "test_lengths", "do not fit in 12 tokens"),
        ({"test_lengths": (33,)}, "test_lengths", "odd"),
        ({"test_lengths": (2,)}, "test_lengths", "greater than or equal to 4"),
    ],
)
def test_a_test_that_can_be_nowhere_is_refused(options: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        task(**options).evaluation_sets()
    assert error.value.place == f"task.options.{place}"
    assert re.search(words, error.value.reason)

"""The mixture against its definition, with the validator of MQAR's own test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_mqar import broken_rule

from chimeralab.contracts import IGNORE, Evaluation
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.mqar_mixed import MqarMixed, MqarMixedConfig, Part, parts

SMALL = {
    "vocab_size": 64,
    "train": "8x1:20 16x3:8 32x8:10",
    "validation": "8x2:3 16x4:5 40x9:2",
    "test": "40x9:7 64x16:2",
}


def task(**options: Any) -> MqarMixed:
    made = MqarMixed(MqarMixedConfig(**{**SMALL, **options}))
    made.check()
    return made


def test_the_defaults_are_the_mixture_of_based() -> None:
    mixture = MqarMixed(MqarMixedConfig())
    mixture.check()
    assert parts(mixture.config.train) == [
        Part(64, 4, 100_000),
        Part(128, 8, 20_000),
        Part(256, 16, 20_000),
        Part(256, 32, 20_000),
        Part(256, 64, 20_000),
    ]
    assert {part.examples for part in parts(mixture.config.validation)} == {1000}
    assert mixture.config.test == mixture.config.validation + " 512x128:1000 1024x256:1000"
    assert (mixture.vocab_size, mixture.sequence_length) == (8192, 256)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_sequences_are_those_of_mqar_and_zeros_follow(split: Any) -> None:
    mixture = task(random_non_queries=False)
    wanted = parts(mixture.config.train if split == "train" else mixture.config.validation)
    seen = set()
    for step in range(12):
        batch = mixture.batch(split, step, 4)
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            pairs = sum(target != IGNORE for target in targets)
            if pairs:
                (part,) = (part for part in wanted if part.pairs == pairs)
                assert broken_rule(inputs[: part.length], targets[: part.length], 64, pairs) == ""
                assert set(inputs[part.length :]) <= {0}
                assert set(targets[part.length :]) <= {IGNORE}
                seen.add(part)
    assert seen == set(wanted)


def test_a_training_batch_is_of_one_part_and_an_epoch_holds_every_sequence() -> None:
    def epoch(number: int, seed: int = 0, rank: int = 0) -> tuple[list[int], set[tuple[int, ...]]]:
        order, rows = [], set()
        for step in range(10 * number, 10 * (number + 1)):  # 5 + 2 + 3 batches of 4
            batch = mixture.batch("train", step, 4, seed=seed, rank=rank)
            (pairs,) = set((batch.targets != IGNORE).sum(1).tolist())
            order.append(pairs)
            rows |= {tuple(row) for row in batch.inputs.tolist()}
        return order, rows

    mixture = task()
    order, rows = epoch(0)
    assert sorted(order) == [1] * 5 + [3] * 2 + [8] * 3
    assert len(rows) == 38
    others = [epoch(1), epoch(0, seed=1), epoch(0, rank=1)]
    assert all(found == rows for _, found in others)
    assert any(other != order for other, _ in others)


def test_validation_takes_turns_and_counts_every_sequence_once() -> None:
    mixture = task()
    for size in (1, 3, 4, 16):
        steps = mixture.evaluation_steps(size)
        batches = [mixture.batch("validation", step, size, seed=step, rank=step) for step in range(steps)]
        pairs = [n for batch in batches for n in (batch.targets != IGNORE).sum(1).tolist() if n]
        assert pairs == [2, 4, 9, 2, 4, 9, 2, 4, 4, 4]
        rows = torch.cat([batch.inputs[(batch.targets != IGNORE).any(1)] for batch in batches])
        assert rows.shape == (10, 40)
        assert len(rows.unique(dim=0)) == 10
        assert torch.equal(mixture.batch("validation", steps, size).inputs, batches[0].inputs)


def test_accuracy_is_told_apart_by_pairs_and_averaged_over_parts() -> None:
    mixture = task()
    total = Evaluation()
    for step in range(mixture.evaluation_steps(4)):
        batch = mixture.batch("validation", step, 4)
        right = torch.nn.functional.one_hot(batch.targets.clamp(min=0), 64).float()
        right[(batch.targets != IGNORE).sum(1) == 4] = 0  # sequences of 4 pairs: id 0 everywhere, which is no value
        total += mixture.measure(right, batch)
    found = mixture.metrics(total)
    assert [found[f"accuracy@pairs={pairs}"] for pairs in (2, 4, 9)] == [1, 0, 1]
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] > 0
    assert mixture.chance().keys() == found.keys()


def test_each_part_of_the_test_is_a_set_of_mqar() -> None:
    sets = task(random_non_queries=False).evaluation_sets()
    assert list(sets) == ["length=40,pairs=9", "length=64,pairs=16"]
    for part, pairs, examples in zip(sets.values(), (9, 16), (7, 2), strict=True):
        batch = part.batch("test", 0, 8)
        counted = (batch.targets != IGNORE).any(1)
        assert counted.sum() == examples
        for inputs, targets in zip(batch.inputs[counted].tolist(), batch.targets[counted].tolist(), strict=True):
            assert broken_rule(inputs, targets, 64, pairs) == ""
    assert not task(test="").evaluation_sets()


@pytest.mark.parametrize("text", ["", "64", "64x4", "64x0:10", "2x1:5", "64x4:0", "64x4:1e5", "64-4:10", "64x70000:10"])
def test_mixtures_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64x4:100000"):
        MqarMixedConfig(train=text)


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ({"train": "8x1:5 16x5:5"}, "train", "part 16x5"),
        ({"validation": "9x1:5"}, "validation", "odd"),
        ({"validation": "8x1:5 16x1:5"}, "validation", "same number of pairs"),
        ({"test": "64x16:5 64x17:5"}, "test", "part 64x17"),
        ({"vocab_size": 16}, "train", "fewer than 8 pairs"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as error:
        task(**options)
    assert error.value.place == f"task.options.{place}"

"""A search that learns: it depends on its trials alone, and comes closer than chance."""

from __future__ import annotations

import math
import random
import statistics

from chimeralab.sweeps import SweepSpec
from chimeralab.sweeps.search import Trial, suggest


def spec(**fields: object) -> SweepSpec:
    axes = {"train.lr": {"log": [1e-5, 1.0]}, "kind": {"a": {"train.beta1": 0.8}, "b": {"train.beta1": 0.9}}}
    return SweepSpec.read(
        {
            "name": "s",
            "base": {"stack": {"pattern": "attention"}},
            "axes": axes,
            "search": {"kind": "optuna", "n": 30, "seed": 1},
            "direction": "min",
            **fields,
        }
    )


def loss(point: dict) -> float:
    return (math.log10(point["train.lr"]) + 3) ** 2 + (1.0 if point["kind"] == "a" else 0.0)


def test_the_same_trials_suggest_the_same_points_whoever_asks() -> None:
    trials = [Trial({"train.lr": 10.0**-n, "kind": "a"}, float(n), True) for n in range(1, 5)]
    waiting = [*trials, Trial({"train.lr": 0.5, "kind": "b"}, None, False)]
    assert suggest(spec(), waiting, 3) == suggest(spec(), waiting, 3)
    assert suggest(spec(), trials, 3) != suggest(spec(), waiting, 3)


def test_points_are_members_that_can_be_built() -> None:
    found = spec().members()
    assert len(found) == 4
    assert all(1e-5 <= m.spec.train.lr <= 1 and m.spec.train.beta1 in (0.8, 0.9) for m in found)


def test_what_was_measured_leads_closer_to_the_best_than_chance() -> None:
    trials: list[Trial] = []
    for _ in range(10):
        trials += [Trial(point, loss(point), True) for point in suggest(spec(), trials, 3)]
    late = statistics.median(trial.value for trial in trials[-15:])
    draws = random.Random(0)
    chance = [loss({"train.lr": 10 ** draws.uniform(-5, 0), "kind": draws.choice("ab")}) for _ in range(500)]
    assert late < 0.5 * statistics.median(chance)


def test_failed_trials_are_no_reason_to_stop() -> None:
    trials = [Trial({"train.lr": 0.1, "kind": "a"}, None, True) for _ in range(12)]
    assert len(suggest(spec(), trials, 2)) == 2

"""Successive halving: decided once a rung, by rank among those that have come so far."""

from __future__ import annotations

import math
import random

from chimeralab.sweeps import Halving
from chimeralab.sweeps.halving import at_rung, rungs, verdict

RULE = Halving(min_step=10, eta=3)


def test_rungs_grow_by_eta() -> None:
    assert rungs(RULE, 9) == []
    assert rungs(RULE, 29) == [10]
    assert rungs(RULE, 90) == [10, 30, 90]


def test_a_member_s_value_at_a_rung_is_its_first_evaluation_from_there_on() -> None:
    evaluations = [(8, 0.1), (16, 0.2), (24, 0.3), (32, 0.4)]
    assert [at_rung(evaluations, rung) for rung in (10, 30, 90)] == [(16, 0.2), (32, 0.4), None]


def said(values: list[float], direction: str = "max", step: int = 10) -> str:
    """The verdict on the last of members that were all evaluated at one step."""
    return verdict(RULE, direction, len(values) - 1, {n: [(step, value)] for n, value in enumerate(values)}, {step})


def test_nobody_is_stopped_before_eta_members_have_come() -> None:
    assert said([0.9, 0.1]) == ""
    assert "2 of 3 members were better" in said([0.9, 0.8, 0.1])


def test_the_best_third_goes_on() -> None:
    values = [0.1 * n for n in range(9)]
    for mine, goes_on in ((0.85, True), (0.65, True), (0.55, False)):  # of ten, three go on
        assert (said([*values, mine]) == "") is goes_on
    assert said([1.0, 2.0, 0.5], "min") == ""
    assert said([1.0, 2.0, 1.5], "min") != ""


def test_equals_go_on_together_and_nan_does_not() -> None:
    assert said([0.5, 0.5, 0.5]) == ""
    assert said([0.5, 0.5, math.nan]) != ""
    assert said([math.nan, math.nan, 0.1]) == ""


def test_a_rung_decides_once_however_evaluations_arrive() -> None:
    others = {1: [(10, 0.9)], 2: [(10, 0.8)]}
    mine = [(12, 0.1), (20, 0.1), (30, 0.1)]
    assert verdict(RULE, "max", 0, {0: mine[:1], **others}, {12}) != ""
    assert verdict(RULE, "max", 0, {0: mine, **others}, {12, 20, 30}) != ""
    assert verdict(RULE, "max", 0, {0: mine[:2], **others}, {20}) == ""
    assert verdict(RULE, "max", 0, {0: mine, **others}, {20, 30}) == ""  # nobody else has come to step 30
    assert verdict(RULE, "max", 0, {0: [], **others}, set()) == ""


def test_most_members_are_stopped_early_and_the_best_is_not() -> None:
    draws = random.Random(0)
    quality = [draws.random() for _ in range(81)]
    curves: dict[int, list[tuple[int, float]]] = {n: [] for n in range(81)}
    alive = list(range(81))
    steps = 0
    for step in range(10, 811, 10):
        for member in list(alive):
            curves[member].append((step, quality[member]))
            steps += 10
            if verdict(RULE, "max", member, curves, {step}):
                alive.remove(member)
    assert max(range(81), key=quality.__getitem__) in alive
    assert len(alive) <= 9
    assert steps < 0.25 * 81 * 810

"""Runs that differ by seed alone, as one: means with intervals, and stacks compared pair by pair."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from chimeralab.runs.spec import decisive
from chimeralab.statistics import Estimate, compare_pairs, estimate


class SeedGroup(BaseModel):
    """Runs of one spec with several seeds; `values` are over those that were completed, by metric."""

    runs: list[int]
    seeds: list[int]
    pattern: str
    task: str
    values: dict[str, Estimate]


class StackPair(BaseModel):
    """Two stacks on the same tasks and seeds: the mean of their differences a - b in `metric`, over `n` pairs.

    `p` is of the two-sided sign-flip test, `adjusted` after Holm's correction for all pairs that are shown.
    """

    a: str
    b: str
    metric: str
    difference: Estimate
    p: float
    adjusted: float
    n: int


class Measured(BaseModel):
    """What a group is made of: a run's spec and its last values on held-out data."""

    id: int
    pattern: str
    task: str
    completed: bool
    spec: dict[str, Any]
    values: dict[str, float]


def seed_groups(runs: Sequence[Measured]) -> list[SeedGroup]:
    """Runs by all that decides what they compute but the seed, in the order of their first."""
    found: dict[str, list[Measured]] = {}
    for run in runs:
        found.setdefault(_key(decisive(run.spec), "seed"), []).append(run)
    return [_group(group) for group in found.values()]


def stack_pairs(runs: Sequence[Measured]) -> list[StackPair]:
    """Each two stacks over the tasks and seeds that both completed, by the first metric that all of those have.

    Empty where fewer than two pairs of runs belong together: one says nothing.
    """
    done = [run for run in runs if run.completed]
    shared = [name for name in ("test/accuracy", "test/loss", "validation/accuracy", "validation/loss")
              if done and all(name in run.values for run in done)]  # fmt: skip
    if not shared:
        return []
    scores: dict[str, dict[Hashable, float]] = {}
    titles: dict[str, str] = {}
    for run in done:
        stack = _key(decisive(run.spec), "seed", "task")
        titles[stack] = _title(run, titles, stack)
        scores.setdefault(stack, {})[_key(run.spec["task"]), run.spec.get("seed", 0)] = run.values[shared[0]]
    return [
        StackPair(
            a=titles[pair.a],
            b=titles[pair.b],
            metric=shared[0],
            difference=pair.difference,
            p=pair.p,
            adjusted=pair.adjusted,
            n=pair.n,
        )
        for pair in compare_pairs(scores, least=2)
    ]


def _group(runs: Sequence[Measured]) -> SeedGroup:
    done = [run for run in runs if run.completed]
    names = sorted({name for run in done for name in run.values if "@" not in name})
    return SeedGroup(
        runs=[run.id for run in runs],
        seeds=[run.spec.get("seed", 0) for run in runs],
        pattern=runs[0].pattern,
        task=runs[0].task,
        values={name: estimate([run.values[name] for run in done if name in run.values]) for name in names},
    )


def _key(fields: Mapping[str, Any], *without: str) -> str:
    return json.dumps({name: value for name, value in fields.items() if name not in without}, sort_keys=True)


def _title(run: Measured, titles: Mapping[str, str], stack: str) -> str:
    """The pattern; with the number of the first run where another stack is written alike."""
    if stack in titles:
        return titles[stack]
    return f"{run.pattern} #{run.id}" if run.pattern in titles.values() else run.pattern

"""Runs that differ by seed alone are shown as one; stacks are compared over the seeds and tasks that both have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chimeralab import Lab, RunSpec
from chimeralab.events import Metrics
from chimeralab.seed_groups import Measured, seed_groups, stack_pairs


def run(number: int, pattern: str = "attention", seed: int = 0, *, task: str = "mqar", **more: Any) -> Measured:
    spec = {"stack": {"layers": [pattern]}, "task": {"name": task}, "seed": seed, "name": f"run {number}"}
    values = {"validation/accuracy": more.get("accuracy", 0.5), "test/accuracy@length=8": 0.1}
    about = {"id": number, "pattern": pattern, "task": task, "completed": more.get("completed", True)}
    return Measured(**about, spec=spec, values=values)


def test_runs_that_differ_by_seed_and_name_alone_are_one_group() -> None:
    runs = [
        run(1, seed=0, accuracy=0.4),
        run(2, "mamba"),
        run(3, seed=1, accuracy=0.6),
        run(4, seed=2, completed=False),
    ]
    attention, mamba = seed_groups(runs)
    assert (attention.runs, attention.seeds, mamba.runs) == ([1, 3, 4], [0, 1, 2], [2])
    assert attention.values.keys() == {"validation/accuracy"}
    assert (attention.values["validation/accuracy"].mean, attention.values["validation/accuracy"].n) == (0.5, 2)


def test_a_run_from_before_runs_could_start_from_weights_belongs_to_its_group() -> None:
    before, after = run(1, seed=0), run(2, seed=1)
    after.spec["start"] = None
    assert [group.runs for group in seed_groups([before, after])] == [[1, 2]]


def test_stacks_are_paired_by_task_and_seed() -> None:
    runs = [
        run(100 * stack + 10 * task + seed, pattern, seed, task=name, accuracy=0.1 * seed + 0.3 * task + 0.2 * stack)
        for stack, pattern in enumerate(("attention", "mamba"))
        for task, name in enumerate(("mqar", "copy"))
        for seed in (0, 1, 2)
    ]
    (pair,) = stack_pairs([*runs, run(999, "mamba", seed=9)])
    assert (pair.a, pair.b, pair.metric, pair.n) == ("attention", "mamba", "validation/accuracy", 6)
    assert pair.difference.mean == pytest.approx(-0.2)
    assert pair.p == pair.adjusted == 2 / 2**6


def test_p_values_are_corrected_for_the_pairs_that_are_shown_alone() -> None:
    stacks = {"attention": 0.9, "mamba": 0.7}
    often = [run(seed, stack, seed, accuracy=value) for seed in range(6) for stack, value in stacks.items()]
    once = [run(9, stack, accuracy=0.1) for stack in ("hyena", "h3")]
    (pair,) = stack_pairs([*often, *once])
    assert pair.p == pair.adjusted == 2 / 2**6


def test_one_pair_of_runs_is_no_comparison() -> None:
    assert stack_pairs([run(1), run(2, "mamba")]) == []
    assert stack_pairs([]) == []


def test_a_lab_compares_over_seeds(tmp_path: Path) -> None:
    with Lab.open(tmp_path) as lab:
        stacks = [lab.compose(text, d_model=16) for text in ("attention[heads=2]", "short_conv")]
        ids = []
        for index, stack in enumerate(stacks):
            for seed in (0, 1, 2):
                spec = RunSpec.model_validate({"stack": stack, "task": {"name": "mqar"}, "seed": seed})
                number = lab.submit(spec)
                attempt = lab.store.claim(number, 0)
                lab.store.begin(number, attempt, {})
                values = {"validation/loss": 1.0 + seed - index, "train/loss": 9.0}
                lab.store.append(number, attempt, [Metrics(seq=1, step=1, tokens=1, seconds=1.0, values=values)])
                lab.store.finish(number, attempt, "completed")
                ids.append(number)
        found = lab.compare(ids)
    assert found.seeded
    assert [group.runs for group in found.groups] == [ids[:3], ids[3:]]
    assert [(g.values["validation/loss"].mean, g.values["validation/loss"].n) for g in found.groups] == [
        (2.0, 3),
        (1.0, 3),
    ]
    assert [(pair.n, pair.difference.mean, pair.p) for pair in found.pairs] == [(3, 1.0, 0.25)]
    assert not found.model_copy(update={"groups": []}).seeded

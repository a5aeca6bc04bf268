"""Sweeps on a real Ray cluster: shared workers, adopted runs, and what a part that fails or is killed costs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from chimeralab import Lab, SweepSpec
from small_runs import curve_of

pytestmark = [pytest.mark.cluster, pytest.mark.either_store]


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def sweep_of(name: str, axes: dict[str, Any], **fields: Any) -> SweepSpec:
    """Runs of a second each, once their worker is warm."""
    train = {"steps": 24, "batch_size": 8, "warmup_steps": 2, "log_every": 1, "eval_every": 8, "eval_batches": 1}
    base = {
        "stack": {"pattern": "attention[heads=2], ffn=none", "d_model": 16},
        "task": {"name": "mqar", "options": {"vocab_size": 32, "sequence_length": 32, "pairs": 2}},
        "train": {**train, "checkpoint_every": 8, "sample_tokens": 0, **fields.pop("train", {})},
        "profile": {"contexts": []},
    }
    return SweepSpec.read({"name": name, "base": base, "axes": axes, **fields})


def wait(lab: Lab, name: str, seconds: float = 400) -> list[Any]:
    lab.wait_sweep(name, timeout=seconds)
    return [lab.run(run) for run in lab.sweep_table(name).run_ids]


def pids(lab: Lab, runs: list[int]) -> list[int]:
    return [lab.attempts(run)[-1].worker["pid"] for run in runs]


def test_members_share_warm_workers_and_compute_what_fresh_ones_do(lab: Lab) -> None:
    spec = sweep_of("warm", {"train.lr": [1e-3, 1e-2]}, seeds=[0, 1, 2], at_once=2)
    lab.sweep(spec)
    rows = wait(lab, "warm")
    assert [(row.status, row.attempt) for row in rows] == [("completed", 1)] * 6, [row.status_reason for row in rows]
    shared = pids(lab, [row.id for row in rows])
    assert len(set(shared)) == 2
    last = max(rows, key=lambda row: row.started_at)
    alone = lab.submit(lab.spec(last.id))
    lab.wait(alone, timeout=240)
    assert pids(lab, [alone])[0] not in shared
    assert curve_of(lab, alone) == curve_of(lab, last.id)

    table = lab.sweep_table("warm")
    assert (table.status, table.members, table.metric) == ("completed", {"completed": 6}, "validation/accuracy")
    assert [point.point for point in table.points] == [{"train.lr": 1e-3}, {"train.lr": 1e-2}]
    assert table.points[0].estimate(table.metric).n == 3
    assert table.best.validation.n == 3

    before = lab.runs().total
    lab.sweep(sweep_of("larger", {"train.lr": [1e-3, 1e-2, 3e-2]}, seeds=[0, 1]))
    adopted = wait(lab, "larger")
    assert [row.id for row in adopted[:4]] == [rows[index].id for index in (0, 1, 3, 4)]
    assert lab.runs().total == before + 2


def test_a_member_that_fails_or_loses_its_worker_harms_no_other(lab: Lab) -> None:
    points = {
        "wild": {"train.lr": 1e18, "train.clip": 0, "train.warmup_steps": 0},
        "killed": {
            "train.steps": 500_000,
            "train.checkpoint_every": 50,
            "train.eval_every": 5_000,  # few events: all of them are stored before a cancelled run has ended
            "train.log_every": 500,
        },
        "calm": {"train.lr": 1e-3},
        "calmer": {"train.lr": 1e-4},
    }
    spec = sweep_of("hurt", {"case": points}, at_once=2)
    lab.sweep(spec)
    wild, killed, calm, calmer = lab.sweep_table("hurt").run_ids
    until(lambda: lab.run(killed).step >= 60)
    os.kill(pids(lab, [killed])[0], signal.SIGKILL)
    until(lambda: lab.run(killed).attempt == 2 and lab.run(killed).step >= 60)
    rows = {run: lab.run(run) for run in (wild, calm, calmer)}
    until(lambda: all(lab.run(run).status in ("completed", "failed") for run in rows))
    assert [(lab.run(run).status, lab.run(run).attempt) for run in (wild, calm, calmer)] == [
        ("failed", 1),
        ("completed", 1),
        ("completed", 1),
    ]
    assert lab.attempts(killed)[0].outcome == "lost"
    lab.cancel_sweep("hurt")
    until(lambda: lab.run(killed).status == "cancelled")
    assert lab.sweep_table("hurt").status == "cancelled"


def test_a_sweep_goes_on_while_the_dispatcher_is_killed(lab: Lab) -> None:
    lab.sweep(sweep_of("orphaned", {"train.lr": [1e-3, 2e-3, 3e-3]}, seeds=[5, 6], train={"steps": 80}, at_once=2))
    runs = lab.sweep_table("orphaned").run_ids
    until(lambda: sum(lab.run(run).status == "completed" for run in runs) >= 2)
    for process in psutil.Process(lab.cluster_connection.pid).children(recursive=True):
        if "ray::Dispatcher" in " ".join(process.cmdline()):
            process.kill()
    rows = wait(lab, "orphaned")
    assert [(row.status, row.attempt) for row in rows] == [("completed", 1)] * 6
    until(lambda: lab.sweep_table("orphaned").status == "completed")


def test_members_that_are_not_among_the_best_are_pruned_and_say_so(lab: Lab) -> None:
    points = {
        "good": {"train.lr": 1e-2},
        "better": {"train.lr": 2e-2},
        **{f"idle {n}": {"train.lr": n * 1e-12, "train.steps": 20_000, "train.log_every": 100} for n in (1, 2)},
    }
    spec = sweep_of("halved", {"case": points}, metric="validation/loss", prune={"min_step": 16, "eta": 2}, at_once=2)
    lab.sweep(spec)
    rows = wait(lab, "halved")
    assert [row.status for row in rows] == ["completed", "completed", "pruned", "pruned"]
    assert "members were better there" in rows[2].status_reason
    assert 16 <= rows[3].step < 20_000
    table = lab.sweep_table("halved")
    assert table.status == "completed"
    assert table.points[table.best.key].point["case"] in ("good", "better")
    lab.sweep(spec)  # what was pruned stays so
    assert [lab.run(row.id).status for row in rows] == ["completed", "completed", "pruned", "pruned"]


def test_a_learned_search_asks_for_more_until_it_has_its_points(lab: Lab) -> None:
    axes = {"train.lr": {"log": [1e-4, 1e-1]}, "train.weight_decay": [0, 0.1]}
    lab.sweep(sweep_of("learned", axes, search={"kind": "optuna", "n": 5}, at_once=2))
    rows = wait(lab, "learned")
    assert [row.status for row in rows] == ["completed"] * 5
    table = lab.sweep_table("learned")
    assert (table.status, table.wanted) == ("completed", 5)
    assert len({point.point["train.lr"] for point in table.points}) == 5

"""Runs on a real Ray cluster: what is recorded, and what happens when a part is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray

from chimeralab import Lab, LabError
from chimeralab.errors import ResourceError, StoreError
from chimeralab.runs.spec import Resources
from chimeralab.scheduling.cluster import NAMESPACE
from chimeralab.scheduling.submission import new_run
from small_runs import curve_of, small_spec

pytestmark = [pytest.mark.cluster, pytest.mark.either_store]
LONG = {"train": {"steps": 400, "log_every": 1, "eval_every": 50, "checkpoint_every": 20, "sample_tokens": 0}}


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> dict[str, tuple[list[int], list[float]]]:
    run = lab.submit(small_spec(lab, name="undisturbed", **LONG))
    (row,) = lab.wait(run, timeout=240)
    assert row.status == "completed", row.status_reason
    return curve_of(lab, run)


def test_a_run_learns_and_everything_about_it_is_recorded(lab: Lab) -> None:
    run = lab.submit(small_spec(lab, name="whole", tags=("test",), train={"sample_tokens": 8}))
    (row,) = lab.wait(run, timeout=240)
    assert (row.status, row.step, row.attempt) == ("completed", 60, 1), row.status_reason
    losses = lab.curve(run, "train/loss").y
    assert losses[-1] < losses[0] - 1
    compared = lab.compare([run]).rows[0]
    assert compared.bits_per_byte < 6.2  # 8 at the start
    assert compared.params == lab.preview(lab.spec(run)).total_params
    assert compared.decode_ms.keys() == compared.state_bytes.keys() == {16, 32}
    assert compared.tokens_per_second > 0
    assert compared.peak_memory_bytes > 0
    kinds = {event.kind for event in lab.events(run)}
    assert kinds >= {"status", "environment", "sample", "log"}
    assert [p.name for p in lab.run_plugins(run)] == ["feed_forwards", "mixers", "tasks"]
    assert {a.role for a in lab.artifacts(run)} == {"newest", "best"}


def test_a_run_whose_worker_is_killed_repeats_the_undisturbed_curve(lab: Lab, undisturbed: dict) -> None:
    run = lab.submit(small_spec(lab, name="killed worker", **LONG))
    until(lambda: lab.run(run).step >= 70)
    os.kill(lab.attempts(run)[-1].worker["pid"], signal.SIGKILL)
    (row,) = lab.wait(run, timeout=240)
    assert (row.status, row.attempt) == ("completed", 2), row.status_reason
    assert [a.outcome for a in lab.attempts(run)] == ["lost", "completed"]
    assert curve_of(lab, run) == undisturbed


def test_a_run_goes_on_while_the_dispatcher_is_killed(lab: Lab, undisturbed: dict) -> None:
    run = lab.submit(small_spec(lab, name="killed dispatcher", **LONG))
    until(lambda: lab.run(run).step >= 30)
    for process in psutil.Process(lab.cluster_connection.pid).children(recursive=True):
        if "ray::Dispatcher" in " ".join(process.cmdline()):
            process.kill()
    (row,) = lab.wait(run, timeout=240)
    assert (row.status, row.attempt) == ("completed", 1), row.status_reason
    assert curve_of(lab, run) == undisturbed


def test_a_cancelled_run_stops_and_goes_on_when_it_is_retried(lab: Lab, undisturbed: dict) -> None:
    run = lab.submit(small_spec(lab, name="cancelled", **LONG))
    until(lambda: lab.run(run).step >= 10)
    worker = ray.get_actor(lab.attempts(run)[-1].worker["name"], namespace=NAMESPACE)
    joined = [worker.join.remote(run, 1) for _ in range(5)]  # as many dispatchers were restarted meanwhile
    lab.cancel(run)
    (row,) = lab.wait(run, timeout=60)
    assert row.status == "cancelled"
    assert row.step < 400
    assert len(ray.wait(joined, num_returns=5, timeout=60)[0]) == 5
    with pytest.raises(StoreError, match="cancelled"):
        lab.cancel(run)
    lab.retry(run)
    (row,) = lab.wait(run, timeout=240)
    assert (row.status, row.attempt) == ("completed", 2), row.status_reason
    assert curve_of(lab, run) == undisturbed


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_what_was_measured(lab: Lab) -> None:
    wild = {"lr": 1e18, "clip": 0, "warmup_steps": 0}
    run = lab.submit(small_spec(lab, name="nan", train=wild))
    (row,) = lab.wait(run, timeout=120)
    assert row.status == "failed"
    assert "loss is" in row.status_reason
    assert lab.curve(run, "train/loss").steps[0] == 1
    assert lab.attempts(run)[-1].outcome == "failed"


def test_early_stopping_ends_a_run_that_no_longer_improves(lab: Lab) -> None:
    flat = {"lr": 1e-12, "warmup_steps": 0, "steps": 400, "eval_every": 2, "patience": 3, "weight_decay": 0}
    run = lab.submit(small_spec(lab, name="flat", train=flat))
    (row,) = lab.wait(run, timeout=120)
    assert row.status == "completed"
    assert row.step < 400
    assert any("no better" in e.payload["message"] for e in lab.events(run, kinds=["log"]))


def test_more_than_the_cluster_has_is_refused_before_anything_is_queued(lab: Lab) -> None:
    before = lab.runs().total
    with pytest.raises(ResourceError, match=r"resources\.gpus: 8 GPUs are asked for and no node .* more than 0"):
        lab.submit(small_spec(lab, resources={"gpus": 8}))
    with pytest.raises(LabError, match="did you mean 'text'"):
        lab.submit(small_spec(lab, task={"name": "txt"}))
    with pytest.raises(ResourceError, match="training would take about"):
        lab.submit(small_spec(lab, train={"batch_size": 10_000_000}))
    assert lab.runs().total == before


def test_runs_that_no_node_can_hold_wait_and_say_why_and_let_others_pass(lab: Lab) -> None:
    spec = small_spec(lab, train={"steps": 2, "sample_tokens": 0}, profile={"contexts": []})
    large = new_run(spec.model_copy(update={"resources": Resources(cpus=64)}))
    waiting = [lab.store.create_run(large) for _ in range(101)]  # more than the dispatcher reads at a time
    try:
        (row,) = lab.wait(lab.submit(spec), timeout=120)
        assert row.status == "completed", row.status_reason
        assert lab.run(waiting[-1]).status == "queued"
        assert "waits for a node with 64 CPUs and 0 GPUs" in lab.run(waiting[-1]).status_reason
    finally:
        for run in waiting:
            lab.cancel(run)


def test_another_process_uses_the_cluster_by_its_address(lab: Lab) -> None:
    program = [sys.executable, "-c", "from chimeralab.cli import main; main()"]
    where = ["--home", str(lab.home.path), "--store", lab.store.url, "--cluster", lab.cluster_connection.address]
    small = ["-d", "32", "--steps", "4", "-b", "2", "--set", "task.options.sequence_length=32"]
    small += ["--set", "profile.contexts=[8]", "--set", "train.sample_tokens=0", "--json"]
    done = subprocess.run([*program, "run", "attention", *small, *where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert lab.run(json.loads(done.stdout)["id"]).status == "completed"


def test_a_cluster_that_serves_one_lab_refuses_another(lab: Lab, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from chimeralab.cli import main; main()"]
    where = ["--home", str(tmp_path), "--cluster", lab.cluster_connection.address]
    done = subprocess.run([*program, "run", "attention", *where], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "the cluster already serves another lab" in done.stderr.replace("\n", " ")
    with Lab.open(tmp_path) as other:
        assert other.runs().total == 0

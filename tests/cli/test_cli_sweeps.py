"""Sweeps from the command line: what is refused, what is shown, and going on after everything was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from called import COMMAND, Call, call_process

from chimeralab import Lab
from chimeralab.scheduling.cluster import stop_embedded
from chimeralab.scheduling.home import Home
from fresh_store import fresh_store_url


def written(folder: Path, name: str = "lrs", **fields: Any) -> Path:
    base = {
        "stack": {"pattern": "attention[heads=2], ffn=none", "d_model": 16},
        "task": {"name": "mqar", "options": {"vocab_size": 32, "sequence_length": 32, "pairs": 2}},
        "train": {"steps": 60, "batch_size": 4, "sample_tokens": 0, "warmup_steps": 2},
        "profile": {"contexts": []},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"base": base, "axes": {"train.lr": [0.001, 0.01]}, **fields}))
    return file


def test_a_detached_sweep_is_queued_shown_listed_and_cancelled(call: Call, tmp_path: Path) -> None:
    file = written(tmp_path, seeds=[0, 1])
    queued = json.loads(call("sweep", "run", str(file), "--detach", "--json").out)
    assert (queued["sweep"], queued["queued"]) == ("lrs", 4)
    shown = json.loads(call("sweep", "show", "lrs", "--json").out)
    assert [point["point"] for point in shown["points"]] == [{"train.lr": 0.001}, {"train.lr": 0.01}]
    assert (shown["metric"], shown["best"], shown["members"]) == ("validation/accuracy", None, {"queued": 4})
    assert "lrs" in call("sweep", "list").out
    assert json.loads(call("runs", "--sweep", "lrs", "--json").out)["total"] == 4
    assert call("sweep", "cancel", "lrs").code == 0
    assert json.loads(call("sweep", "list", "--json").out)[0]["runs"] == {"cancelled": 4}
    assert json.loads(call("sweep", "run", "lrs", "--detach", "--json").out)["queued"] == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"axes": {"train.lr": [0.1, -1]}}, "axes: train.lr = -1: run.train.lr"),
        ({"axes": {"task.options.pairs": [2, 99]}}, "axes: task.options.pairs = 99: task.options.sequence_length"),
        ({"axes": {"task.name": ["mqar", "mqra"]}}, "axes: task.name = mqra: task.name: unknown task"),
        ({"search": "bayes"}, "sweep.search.kind"),
        ({"seeds": "3"}, "sweep.seeds"),
    ],
)
def test_a_point_that_cannot_run_is_refused_before_anything_is_queued(
    call: Call, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    refused = call("sweep", "run", str(written(tmp_path, **fields)), "--detach")
    assert (refused.code, said in refused.err.replace("\n", " ")) == (2, True), refused.err
    assert json.loads(call("runs", "--json").out)["total"] == 0


def test_a_file_that_is_no_sweep_is_refused(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("base: [")
    assert "it cannot be read" in call("sweep", "run", str(file)).err
    assert "no such sweep" in call("sweep", "show", "nothing").err


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    home = tmp_path / "home"
    home.mkdir()
    yield home, os.environ | {"CHIMERALAB_HOME": str(home), "CHIMERALAB_STORE": fresh_store_url(home)}
    stop_embedded(Home.open(home))


@pytest.mark.cluster
@pytest.mark.either_store
def test_a_sweep_whose_command_and_cluster_are_killed_goes_on_without_repeating(
    tmp_path: Path, place: tuple[Path, dict[str, str]]
) -> None:
    home, environment = place
    command = ["sweep", "run", str(written(tmp_path, seeds=[0, 1, 2], at_once=1))]
    said = tmp_path / "stderr"
    with said.open("w") as stderr:
        process = subprocess.Popen([*COMMAND, *command], env=environment, stderr=stderr)
    with Lab.open(home, store=environment["CHIMERALAB_STORE"]) as lab:
        deadline = time.monotonic() + 180
        while sum(row.status == "completed" for row in lab.runs().rows) < 2:
            assert process.poll() is None, f"it ended by itself: {said.read_text()}"
            assert time.monotonic() < deadline, "it does not get going"
            time.sleep(0.05)
        head = psutil.Process(json.loads((home / "cluster.json").read_text())["pid"])
        for victim in [process, *head.children(recursive=True), head]:
            victim.send_signal(signal.SIGKILL)
        process.wait()
        done = {row.id: row.ended_at for row in lab.runs().rows if row.status == "completed"}
        assert 2 <= len(done) < 6
        finished = call_process(*command, "--json", env=environment)
        assert finished.code == 0, finished.err
        table = json.loads(finished.out)
        assert (table["status"], table["members"]) == ("completed", {"completed": 6})
        assert {point["validation"]["n"] for point in table["points"]} == {3}
        assert {run: lab.run(run).ended_at for run in done} == done
        assert all(len(lab.attempts(run)) == 1 for run in done)
        assert lab.runs().total == 6

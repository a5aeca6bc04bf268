"""Runs without a cluster: queued, listed, shown, compared, cancelled and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from called import Call

from chimeralab import Lab, RunSpec
from chimeralab.cli import train
from chimeralab.events import Checkpoint, Log, Metrics, Profile


@pytest.fixture
def queued(call: Call, corpus: Path) -> int:
    """A run that waits for a cluster."""
    finished = call(
        "run", "attention[heads=2]", "-d", "32", "--detach", "--json", "-s", f"task.options.source={corpus}"
    )
    return json.loads(finished.out)["id"]


def test_a_detached_run_is_queued(call: Call, queued: int) -> None:
    (row,) = json.loads(call("runs", "--json").out)["runs"]
    assert (row["id"], row["status"]) == (queued, "queued")


def test_runs_are_listed_by_status(call: Call, queued: int) -> None:
    assert json.loads(call("runs", "--status", "completed", "--json").out) == {"total": 0, "runs": []}


def test_a_run_is_shown_as_json(call: Call, queued: int) -> None:
    shown = json.loads(call("show", str(queued), "--json").out)
    assert (shown["pattern"], shown["attempts"], shown["metrics"]) == ("attention[heads=2]", [], {})


def test_a_run_is_found_by_its_name(call: Call, queued: int) -> None:
    assert json.loads(call("show", "attention[heads=2]", "--json").out)["id"] == queued


def test_the_last_words_of_a_long_log_are_shown_as_they_were_said(call: Call, home: Path, queued: int) -> None:
    with Lab.open(home) as lab:
        attempt = lab.store.claim(queued, 0)
        assert attempt is not None
        lab.store.begin(queued, attempt, {})
        logs = [Log(seq=number, message=f"word {number} [bold]") for number in range(1, 601)]
        lab.store.append(queued, attempt, logs)
        newest = Checkpoint(seq=601, step=1, role="newest", path="/runs/[dim]/step", bytes=1)
        lab.store.append(queued, attempt, [newest])
        lab.store.finish(queued, attempt, "failed", "list [red] is [/] wrong")
    shown = call("show", str(queued)).out
    assert "failed  list [red] is [/] wrong" in shown
    assert "/runs/[dim]/step" in shown
    assert "word 600 [bold]" in shown
    assert "word 1 " not in shown


def test_what_was_profiled_is_shown_in_one_line_with_its_units(call: Call, home: Path, queued: int) -> None:
    with Lab.open(home) as lab:
        attempt = lab.store.claim(queued, 0)
        assert attempt is not None
        lab.store.begin(queued, attempt, {})
        values = {
            "decode_ms": 15.3333,
            "tokens_per_second": 65217.0,
            "state_bytes": 3 * 2**20,
            "peak_memory_bytes": 1024,
        }
        lab.store.append(queued, attempt, [Profile(seq=1, name="decode", context=1024, batch=1, values=values)])
    lines = [" ".join(line.split()) for line in call("show", str(queued)).out.splitlines()]
    assert "decode 1024 1 15.333 ms, 65.2k tokens/s, 3 MiB of state, 1 KiB at most" in lines


def test_runs_are_compared_as_json(call: Call, queued: int) -> None:
    shown = json.loads(call("compare", str(queued), str(queued), "--json").out)
    assert [row["id"] for row in shown["rows"]] == [queued, queued]
    assert shown["differences"] == {}


def test_runs_that_differ_by_seed_alone_are_one_line_of_a_comparison(call: Call, home: Path) -> None:
    with Lab.open(home) as lab:
        for pattern in ("attention[heads=2]", "short_conv"):
            for seed in (0, 1):
                spec = {"stack": lab.compose(pattern, d_model=16), "task": {"name": "mqar"}, "seed": seed}
                run = lab.submit(RunSpec.model_validate(spec))
                attempt = lab.store.claim(run, 0)
                assert attempt is not None
                lab.store.begin(run, attempt, {})
                values = {"validation/loss": 1.0 + seed + run}
                lab.store.append(run, attempt, [Metrics(seq=1, step=1, tokens=1, seconds=1, values=values)])
                lab.store.finish(run, attempt, "completed")
    shown = [line.split() for line in call("compare", "1", "2", "3", "4").out.splitlines()]
    assert ["attention[heads=2]", "mqar", "2", "3", "[2,", "4]", "(n=2)"] in shown
    assert ["short_conv", "mqar", "2", "5", "[4,", "6]", "(n=2)"] in shown
    assert ["attention[heads=2]", "short_conv", "-2", "[-2,", "-2]", "(n=2)", "0.5", "0.5"] in shown
    assert "seeds" not in call("compare", "1", "3").out


def test_a_queued_run_is_cancelled_at_once(call: Call, queued: int) -> None:
    assert f"run {queued} is cancelled" in call("cancel", str(queued)).out


def test_several_runs_are_resumed_at_once(call: Call, home: Path, queued: int) -> None:
    with Lab.open(home) as lab:
        runs = [queued, lab.submit(lab.spec(queued))]
        for run in runs:
            lab.cancel(run)
        nobody = call("resume", *map(str, runs), "--cluster", "127.0.0.1:1")  # goes on once they are queued
        assert "nobody answers" in nobody.err
        assert [lab.run(run).status for run in runs] == ["queued", "queued"]


def test_a_run_that_has_ended_cannot_be_cancelled(call: Call, queued: int) -> None:
    call("cancel", str(queued))
    finished = call("cancel", str(queued))
    assert finished.code == 2
    assert f"run {queued}: the run is cancelled" in finished.err


def test_ctrl_c_says_that_a_run_has_not_stopped_yet(
    call: Call, home: Path, queued: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_said", interrupted)  # while it waits
    monkeypatch.setattr(train, "CANCEL_SECONDS", 0.1)
    with Lab.open(home) as lab:
        pruned = lab.submit(lab.spec(queued))
        for run in (queued, pruned):
            attempt = lab.store.claim(run, 0)
            assert attempt is not None
            lab.store.begin(run, attempt, {})
        lab.store.request_prune(pruned, 1, "the others are better")
        lab.store.finish(pruned, 1, "cancelled")
        with pytest.raises(KeyboardInterrupt):
            train.watch(lab, [queued, pruned])
        assert lab.run(queued).cancel_requested
        assert lab.run(pruned).status == "pruned"
    said = " ".join(capsys.readouterr().err.split())
    assert f"run {queued} is running, run {pruned} is pruned; asked to stop, it ends after its step" in said


def test_more_gpus_than_anybody_has_may_be_queued_while_no_cluster_is_known(call: Call, corpus: Path) -> None:
    assert call("run", "attention", "--gpus", "8", "--detach", "-s", f"task.options.source={corpus}").code == 0


def test_a_notebook_opens_the_store_that_a_command_writes_to(
    call: Call, home: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIMERALAB_STORE", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert call("run", "attention", "--detach", "-s", f"task.options.source={corpus}").code == 0
    with Lab.open(home) as lab:
        assert lab.runs().total == 1
    assert not (home / "lab.db").exists()

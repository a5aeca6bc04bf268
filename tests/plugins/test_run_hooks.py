"""Plugins are told of runs on a thread of their own, in order; one that raises is logged and the others are told."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import chimeralab
from chimeralab.plugins import Registry, registry
from chimeralab.scheduling import hooks
from small_runs import small_spec


class Slow:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.may_go_on, self.finished = threading.Event(), threading.Event()

    @chimeralab.hookimpl
    def run_started(self, run_id: int) -> None:
        self.may_go_on.wait(timeout=30)
        self.told.append(f"{run_id} started")

    @chimeralab.hookimpl
    def run_finished(self, run_id: int, status: str) -> None:
        self.told.append(f"{run_id} {status}")
        self.finished.set()


class Raising:
    @chimeralab.hookimpl
    def run_started(self) -> None:
        raise RuntimeError("no network")


def test_a_slow_plugin_holds_up_nobody_and_one_that_raises_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugins, slow = Registry([]), Slow()
    plugins.register(Raising(), "a raising one")
    plugins.register(slow, "slow")
    monkeypatch.setattr(hooks, "registry", lambda: plugins)
    teller = hooks.Hooks()
    before = time.monotonic()
    teller.tell("run_started", run_id=7, attempt=1, spec={})
    teller.tell("run_finished", run_id=7, status="pruned", reason="")
    assert time.monotonic() - before < 5
    assert slow.told == []
    slow.may_go_on.set()
    assert slow.finished.wait(timeout=30)
    assert slow.told == ["7 started", "7 pruned"]
    assert "plugin a raising one: run_started" in caplog.text
    assert "no network" in caplog.text


def test_plugins_hear_of_a_run_that_was_cancelled_while_it_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, plugin = Registry([]), Slow()
    plugins.register(plugin, "mine")
    with chimeralab.Lab.open(tmp_path) as lab:
        run = lab.submit(small_spec(lab))
        monkeypatch.setattr("chimeralab.plugins.registry", lambda: plugins)
        assert lab.cancel(run) == "cancelled"
    assert plugin.told == [f"{run} cancelled"]


def test_plugins_hear_of_runs_that_their_sweep_dropped_while_they_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, str]] = []

    def notify(hook: str, *, run_id: int, status: str, reason: str) -> None:
        assert (hook, status) == ("run_finished", "cancelled")
        told.append((run_id, reason))

    base = {"stack": {"pattern": "attention[heads=2]", "d_model": 16}, "task": {"name": "mqar"}}
    fields = {"name": "lr", "base": base}
    with chimeralab.Lab.open(tmp_path) as lab:
        lab.sweep(chimeralab.SweepSpec.read({**fields, "axes": {"train.lr": [1e-3, 2e-3]}}))
        one, two = lab.sweep_table("lr").run_ids
        monkeypatch.setattr(registry(), "notify", notify)
        lab.sweep(chimeralab.SweepSpec.read({**fields, "axes": {"train.lr": [1e-3]}}))
        lab.cancel_sweep("lr")
    assert told == [(two, "the sweep lr was changed"), (one, "its sweep was cancelled")]

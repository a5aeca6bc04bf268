"""What the dispatcher decides, without a cluster: where a run has room, whose runs it takes over, who has a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chimeralab import Lab, RunSpec, SweepSpec, waiting
from chimeralab.errors import ResourceError
from chimeralab.events import Metrics
from chimeralab.runs.spec import Resources
from chimeralab.scheduling.dispatcher import LEASE_SECONDS, Dispatcher, open_store
from chimeralab.scheduling.hooks import Hooks
from chimeralab.scheduling.nodes import Node, described
from chimeralab.scheduling.pool import Pool, Worker
from chimeralab.scheduling.submission import new_run
from chimeralab.scheduling.sweeping import SweepKeeper
from chimeralab.waiting import Silence
from postgres import running_server
from small_runs import small_spec

TWO = [Node("a", 4, 0, 8e9), Node("b", 2, 1, 4e9)]


class Actor:
    """Stands where Ray's handle of a worker does."""

    def __getattr__(self, method: str) -> Any:
        return self

    def remote(self, *_: Any) -> str:
        return "a promise"


def worker(name: str, node: str, cpus: float, gpus: float = 0, sweep: int | None = None) -> Worker:
    return Worker(name, Actor(), node, sweep, cpus, gpus)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr("ray.kill", lambda _: None)
    return Pool("")


def test_a_run_has_room_where_one_node_has_all_that_it_asks_for(pool: Pool) -> None:
    assert pool.room(4, 0, TWO) == TWO[0]
    assert pool.room(1, 0.5, TWO) == TWO[1]
    assert pool.room(3, 1, TWO) is None
    pool.busy[1] = worker("w", "a", 3)
    assert pool.room(2, 0, TWO) == TWO[1]
    pool.busy[2] = worker("v", "b", 1)
    assert pool.room(2, 0, TWO) is None  # one is left on each
    assert pool.room(1, 0, TWO) == TWO[0]


def test_a_dozen_twelfths_of_a_gpu_have_room_and_one_more_has_not(pool: Pool) -> None:
    for number in range(12):
        assert pool.room(0.1, 1 / 12, TWO) == TWO[1]
        pool.busy[number] = worker(str(number), "b", 0.1, 1 / 12)
    assert pool.room(0.1, 1 / 12, TWO) is None


def test_idle_workers_make_room_the_longest_idle_first(pool: Pool) -> None:
    pool.idle = [worker("old", "a", 2), worker("new", "a", 2)]
    assert pool.room(2, 0, [TWO[0]]) == TWO[0]
    assert [idle.name for idle in pool.idle] == ["new"]


def test_idle_workers_whose_end_makes_no_room_are_kept(pool: Pool) -> None:
    pool.busy[1] = worker("busy", "a", 3)
    pool.idle = [worker("elsewhere", "a", 1), worker("small", "b", 0.5), worker("gpu", "b", 0.5, 1)]
    assert pool.room(4, 0, TWO) is None
    assert pool.room(1, 1, TWO) == TWO[1]  # only the one that has the GPU is in its way
    assert [idle.name for idle in pool.idle] == ["elsewhere", "small"]
    pool.idle.append(worker("new", "b", 1))
    assert pool.room(1.5, 0, TWO) == TWO[1]
    assert [idle.name for idle in pool.idle] == ["elsewhere", "small"]


def test_an_idle_worker_that_a_broken_claim_names_is_in_one_place(pool: Pool) -> None:
    pool.idle = [worker("warm", "a", 2, sweep=7)]
    pool.adopt(3, 1, worker("warm", "a", 2, sweep=7))  # as found in the store: the claim was written, its answer lost
    assert (pool.idle, [busy.name for busy in pool.busy.values()]) == ([], ["warm"])
    pool.busy[3].reusable = True
    pool.release(3)
    assert ([idle.name for idle in pool.idle], pool.busy) == (["warm"], {})


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab.open(tmp_path) as opened:
        yield opened


def asking(lab: Lab, **resources: float) -> RunSpec:
    return small_spec(lab).model_copy(update={"resources": Resources(**resources)})


def test_what_no_node_of_any_living_cluster_has_is_refused(lab: Lab) -> None:
    lab.store.heartbeat("two", "127.0.0.1:1", described(TWO))
    lab.preview(asking(lab, cpus=4))
    lab.preview(asking(lab, cpus=2, gpus=1))
    with pytest.raises(ResourceError, match=r"resources: no node of the cluster has 1 GPUs and 4 CPUs"):
        lab.preview(asking(lab, cpus=4, gpus=1))
    with pytest.raises(ResourceError, match=r"resources\.cpus: 5 CPUs are asked for and no node .* more than 4"):
        lab.preview(asking(lab, cpus=5))
    with pytest.raises(ResourceError, match=r"resources\.gpus: 2 GPUs are asked for and no node .* more than 1"):
        lab.preview(asking(lab, gpus=2))
    lab.store.heartbeat("large", "127.0.0.1:2", described([Node("c", 8, 2, 8e9)]))
    lab.store.heartbeat("two", "127.0.0.1:1", described(TWO))  # whichever was heard of last
    lab.preview(asking(lab, cpus=4, gpus=1))


def test_a_member_is_pruned_at_its_evaluation_though_the_dispatcher_has_just_been_started(lab: Lab) -> None:
    base = {
        "stack": {"pattern": "attention[heads=2], ffn=none", "d_model": 16},
        "task": {"name": "mqar", "options": {"vocab_size": 32, "sequence_length": 32, "pairs": 2}},
        "train": {"steps": 100, "batch_size": 2},
    }
    fields = {"metric": "validation/loss", "prune": {"min_step": 10, "eta": 2}}
    lab.sweep(SweepSpec.read({"name": "lr", "base": base, "axes": {"train.lr": [1e-2, 1e-3, 1e-4]}, **fields}))
    keeper = SweepKeeper.__new__(SweepKeeper)  # without its thread: it has looked at nothing yet
    keeper.store = lab.store
    for run, loss in zip(lab.sweep_table("lr").run_ids, (1.0, 2.0, 3.0), strict=True):
        lab.store.claim(run, 0, "here")
        events = [Metrics(seq=1, step=10, tokens=1, seconds=1.0, values={"validation/loss": loss})]
        lab.store.append(run, 1, events)
        keeper.evaluated(run, 1, events)
    assert [run.cancel_requested for run in lab.store.active()] == [False, True, True]


def test_a_sweep_that_comes_while_the_dispatcher_looks_has_no_more_at_work_than_it_wants(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"stack": {"pattern": "attention[heads=2], ffn=none", "d_model": 16}, "task": {"name": "mqar"}}
    spec = SweepSpec.read({"name": "late", "base": base, "axes": {"train.lr": [1e-2, 1e-3, 1e-4]}, "at_once": 1})
    dispatcher = Dispatcher.__new__(Dispatcher)  # without its threads
    dispatcher.store, dispatcher.identity, dispatcher.pool = lab.store, "here", Pool("")
    look = lab.store.sweeps

    def look_and_then_it_comes(*status: Any) -> list[Any]:
        found = look(*status)
        lab.sweep(spec)
        return found

    monkeypatch.setattr(lab.store, "sweeps", look_and_then_it_comes)
    monkeypatch.setattr("chimeralab.scheduling.nodes.living", lambda: TWO)
    monkeypatch.setattr(dispatcher.pool, "hire", lambda run, name, node: worker(name, node, 1, sweep=run.sweep))
    dispatcher._launch()
    assert len(dispatcher.pool.busy) == 1
    assert lab.sweep_table("late").members == {"starting": 1, "queued": 2}


def test_one_and_a_half_gpus_are_refused() -> None:
    assert (Resources(gpus=0.5).gpus, Resources(gpus=2).gpus) == (0.5, 2)
    with pytest.raises(ValueError, match="take a whole number, or a fraction below 1"):
        Resources(gpus=1.5)


def test_a_run_of_another_cluster_is_taken_over_when_it_was_silent_while_we_could_hear(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    dispatcher = Dispatcher.__new__(Dispatcher)  # without its threads
    dispatcher.store, dispatcher.identity, dispatcher.silence = lab.store, "here", Silence()
    dispatcher.pool, dispatcher.hooks = Pool(""), Hooks()
    lab.store.heartbeat("there", "127.0.0.1:1", {})
    run = lab.store.create_run(new_run(small_spec(lab)))
    lab.store.claim(run, 0, "there")

    def after(seconds: float) -> str:
        nonlocal now
        now += seconds
        with monkeypatch.context() as clock:
            clock.setattr(waiting.time, "monotonic", lambda: now)
            clock.setattr(waiting.time, "time", lambda: 0.0)  # the clocks of two machines may differ
            dispatcher._recover()
        return lab.run(run).status

    assert after(0) == "starting"
    assert after(LEASE_SECONDS - 1) == "starting"
    lab.store.heartbeat("there", "127.0.0.1:1", {})
    assert after(LEASE_SECONDS - 1) == "starting"
    assert after(LEASE_SECONDS - 1) == "starting"
    dispatcher.silence.forget()  # the database was away
    assert after(2) == "starting"
    assert after(LEASE_SECONDS + 1) == "queued"


def test_a_dispatcher_that_is_started_while_the_database_is_away_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_server() as server, ThreadPoolExecutor(1) as thread:
        url = server.new_database_url()
        server.stop()
        opening = thread.submit(open_store, url)
        while "dispatch" not in caplog.text:
            time.sleep(0.05)
        server.start()
        store = opening.result(timeout=60)
        assert store.queued() == []
        store.close()


def test_a_search_that_cannot_go_on_ends_its_sweep_and_says_why(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"stack": {"pattern": "attention[heads=2], ffn=none", "d_model": 16}, "task": {"name": "mqar"}}
    axes = {"train.lr": {"log": [1e-4, 1e-1]}}
    search = {"kind": "optuna", "n": 5}
    lab.sweep(SweepSpec.read({"name": "asked", "base": base, "axes": axes, "search": search, "at_once": 1}))

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a sampler's own")

    monkeypatch.setattr("chimeralab.scheduling.sweeping.suggest", broken)
    keeper = SweepKeeper.__new__(SweepKeeper)
    keeper.store = lab.store
    for run in lab.sweep_table("asked").run_ids:
        lab.cancel(run)  # now there is room for more
    keeper._look()
    table = lab.sweep_table("asked")
    assert (table.status, table.reason) == ("failed", "ZeroDivisionError: a sampler's own")

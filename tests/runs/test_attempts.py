"""Attempts with a real store and courier, without Ray: through an outage, and beside one that was given up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from local_runs import TIMED, MakeSpec

from chimeralab import RunSpec
from chimeralab.events import Event, Metrics
from chimeralab.runs.execute import execute
from chimeralab.runs.sink import Listing
from chimeralab.runs.trainer import Cancelled
from chimeralab.scheduling.courier import Courier
from chimeralab.scheduling.submission import new_run
from chimeralab.store import Store, StoreUnavailable
from postgres import running_server

Curves = dict[str, dict[int, float]]


class Delivering(Courier):
    """Brings an attempt's events to the store, and does something when it measures at some steps."""

    def __init__(self, store: Store, run_id: int, attempt: int, at: dict[int, Callable[[], object]]) -> None:
        super().__init__(lambda events: store.append(run_id, attempt, events).last, away=StoreUnavailable)
        self.at = at

    def emit(self, event: Event) -> int:
        number = super().emit(event)
        if isinstance(event, Metrics) and event.step in self.at:
            self.at.pop(event.step)()
        return number


def started(store: Store, run_id: int, attempt: int) -> None:
    assert store.claim(run_id, attempt - 1) == attempt
    store.begin(run_id, attempt, {"name": f"worker {attempt}"})


def measured(store: Store, run_id: int) -> Curves:
    names = [name for name in store.metrics(run_id) if not name.endswith(TIMED)]
    curves = {name: store.curve(run_id, name) for name in names}
    return {name: dict(zip(curve.steps, curve.y, strict=True)) for name, curve in curves.items()}


def undisturbed(spec: RunSpec, folder: Path, cache: Path) -> Curves:
    sink, curves = Listing(), Curves()
    execute(spec, folder=folder, cache=cache, sink=sink)
    for event in sink.events:
        if isinstance(event, Metrics):
            for name, value in event.values.items():
                if not name.endswith(TIMED):
                    curves.setdefault(name, {})[event.step] = value
    return curves


def test_a_run_trains_on_while_the_database_is_away_and_loses_nothing(
    make_spec: MakeSpec, tmp_path: Path, cache: Path
) -> None:
    spec = make_spec()
    calm = undisturbed(spec, tmp_path / "calm", cache)
    with running_server() as server:
        store = Store.open(server.new_database_url())
        run_id = store.create_run(new_run(spec))
        started(store, run_id, 1)
        courier = Delivering(store, run_id, 1, {7: server.stop, 24: server.start})
        execute(spec, folder=tmp_path / "attempt-1", cache=cache, sink=courier)
        courier.flush()
        courier.close()
        assert (courier.stale, courier.broken) == (False, None)
        assert measured(store, run_id) == calm
        assert all(Path(artifact.path).is_dir() for artifact in store.artifacts(run_id))
        store.close()


def test_an_attempt_that_was_given_up_and_lives_on_disturbs_its_successor_in_nothing(
    make_spec: MakeSpec, tmp_path: Path, cache: Path
) -> None:
    spec = make_spec()
    calm = undisturbed(spec, tmp_path / "calm", cache)
    store = Store.open(f"sqlite:///{tmp_path}/lab.db")
    run_id = store.create_run(new_run(spec))
    halfway, go_on = threading.Event(), threading.Event()

    def stall() -> None:
        halfway.set()
        go_on.wait(timeout=60)

    started(store, run_id, 1)
    first = Delivering(store, run_id, 1, {10: stall})

    def live_on() -> None:
        with contextlib.suppress(Cancelled):
            execute(spec, folder=tmp_path / "attempt-1", cache=cache, sink=first)
        first.flush()

    given_up = threading.Thread(target=live_on)
    given_up.start()
    assert halfway.wait(timeout=60)
    first.flush()
    store.requeue(run_id, 1, "its node does not answer")
    named = {artifact.role: Path(artifact.path) for artifact in store.artifacts(run_id)}
    assert named["newest"].name == "step-00000006"

    def meet() -> None:
        go_on.set()
        given_up.join(timeout=60)

    started(store, run_id, 2)
    second = Delivering(store, run_id, 2, {9: meet})
    folder = tmp_path / "attempt-2"
    execute(spec, folder=folder, cache=cache, sink=second, resume=named["newest"], best=named.get("best"))
    second.flush()
    store.finish(run_id, 2, "completed")
    assert (first.stale, second.stale, second.broken) == (True, False, None)
    assert measured(store, run_id) == calm
    assert {Path(artifact.path).parents[1].name for artifact in store.artifacts(run_id)} == {"attempt-2"}
    assert all(Path(artifact.path).is_dir() for artifact in store.artifacts(run_id))
    for courier in (first, second):
        courier.close()
    store.close()

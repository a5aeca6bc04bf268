"""The dispatcher: a detached actor that claims queued runs, starts their workers and writes what they send.

It may be killed at any moment: Ray starts it again, and it finds its workers by their names.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray

from chimeralab.errors import ClusterError, LabError, StaleAttempt
from chimeralab.events import Metrics, load_events
from chimeralab.plugins import registry
from chimeralab.scheduling.cluster import NAMESPACE, START_SECONDS
from chimeralab.scheduling.sweeping import SweepKeeper
from chimeralab.scheduling.worker import DISPATCHER, RunWorker, worker_name
from chimeralab.store import ActiveRun, QueuedRun, Store

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
KEEP_SECONDS = 15.0  # an idle worker stays so long for the next member of its sweep
SLACK = 1e-9  # a dozen times 1/12 of a GPU is one, but for rounding
log = logging.getLogger(__name__)


@dataclass
class _Worker:
    """A worker process and the attempt that it has. Only members of a sweep share one, and only among themselves."""

    name: str
    handle: Any
    sweep: int | None
    cpus: float
    gpus: float
    attempt: int = 0
    ended: Any = None  # resolves when the attempt was reported, fails when the worker died
    cancelling: bool = False
    idle_since: float = 0.0

    def suits(self, run: QueuedRun) -> bool:
        asked = (run.resources["cpus"], run.resources["gpus"])
        return run.sweep is not None and (run.sweep, asked) == (self.sweep, (self.cpus, self.gpus))


class Dispatcher:
    """One a cluster. `identity` names the cluster in the store, so that only its own dispatcher recovers its runs."""

    def __init__(self, store_url: str, home: str, identity: str, address: str) -> None:
        self.store = Store.open(store_url)
        self.home, self.identity, self.address = home, identity, address
        self.workers: dict[int, _Worker] = {}  # by the run that they have
        self.idle: list[_Worker] = []
        self._heartbeat = 0.0
        self.sweeps = SweepKeeper(self.store)
        threading.Thread(target=self._loop, name="dispatch", daemon=True).start()

    # -- what workers call ----------------------------------------------------------------------------------

    def begin(self, run_id: int, attempt: int, worker: dict[str, Any]) -> None:
        self.store.begin(run_id, attempt, worker)
        registry().notify("run_started", run_id=run_id, attempt=attempt, spec=self.store.run(run_id).spec)

    def deliver(self, run_id: int, attempt: int, payload: bytes) -> int:
        """Write a batch of events; returns the number of the last one that the store holds."""
        events = load_events(payload)
        last = self.store.append(run_id, attempt, events)
        total = None
        for event in events:
            if isinstance(event, Metrics):
                total = total or self.store.run(run_id).total_steps
                registry().notify("run_progress", run_id=run_id, step=event.step, total=total, metrics=event.values)
        worker = self.workers.get(run_id)
        if worker is not None and worker.sweep is not None:
            self.sweeps.evaluated(worker.sweep, run_id, attempt, events)
        return last

    def finish(self, run_id: int, attempt: int, status: Any, reason: str) -> None:
        self.store.finish(run_id, attempt, status, reason)
        registry().notify("run_finished", run_id=run_id, status=status, reason=reason)

    # -- what a lab calls -----------------------------------------------------------------------------------

    def serves(self) -> tuple[str, str]:
        """(store, home) of this dispatcher."""
        return self.store.url, self.home

    # -- the loop -------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        tidy = False
        while True:
            try:
                if not tidy:
                    self._end_strays()
                    tidy = True
                self._beat()
                self._reap()
                self._recover()
                self._launch()
            except LabError as error:  # the database is away: workers keep their events, we try again
                log.warning("dispatch: %s", error)
                time.sleep(1)
            except Exception:
                log.exception("dispatch")
                time.sleep(1)
            self._pause()

    def _pause(self) -> None:
        """Until it is time to look again: at once when a worker has ended, so that it soon has the next run."""
        ended = [worker.ended for worker in self.workers.values()]
        if ended:
            ray.wait(ended, timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)

    def _beat(self) -> None:
        if time.monotonic() - self._heartbeat >= HEARTBEAT_SECONDS:
            total = ray.cluster_resources()
            resources = {key: total.get(key, 0.0) for key in ("CPU", "GPU", "memory")}
            resources["nodes"] = sum(node["Alive"] for node in ray.nodes())
            self.store.heartbeat(self.identity, self.address, resources)
            self._heartbeat = time.monotonic()

    def _end_strays(self) -> None:
        """Idle workers that the dispatcher before this one has left: they hold room that nobody counts."""
        known = {run.worker.get("name") for run in self.store.active()}
        for name in ray.util.list_named_actors():
            if name.startswith("run-") and name not in known:
                ray.kill(ray.get_actor(name, namespace=NAMESPACE))

    def _reap(self) -> None:
        """Workers that have ended an attempt: those that died leave a run to be queued again."""
        for run_id, worker in list(self.workers.items()):
            ready, _ = ray.wait([worker.ended], timeout=0)
            if not ready:
                continue
            reusable = False
            try:
                reusable = ray.get(worker.ended)
                reason = "the worker ended without a word"
            except Exception as error:
                reason = f"the worker was lost: {_first_line(error)}"
            self._requeue(run_id, worker.attempt, reason)
            del self.workers[run_id]
            if reusable and worker.sweep is not None:
                worker.idle_since, worker.cancelling = time.monotonic(), False
                self.idle.append(worker)
            else:
                ray.kill(worker.handle)

    def _recover(self) -> None:
        """Active runs: pass on cancellation, find workers after a restart, queue again what has none."""
        for run in self.store.active():
            known = self.workers.get(run.id)
            if known is not None and known.attempt == run.attempt:
                if run.cancel_requested and not known.cancelling:
                    known.handle.cancel.remote(run.id, run.attempt)
                    known.cancelling = True
            elif run.cluster == self.identity:
                self._adopt(run)
            elif run.heartbeat_at is None or time.time() - run.heartbeat_at > LEASE_SECONDS:
                self._requeue(run.id, run.attempt, f"its cluster {run.cluster} is gone")

    def _adopt(self, run: ActiveRun) -> None:
        name = run.worker.get("name", "")
        try:
            handle = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            self._requeue(run.id, run.attempt, "its worker is gone")
            return
        asked = self.store.run(run.id).resources
        worker = _Worker(name, handle, run.sweep, asked["cpus"], asked["gpus"], run.attempt)
        worker.ended = handle.join.remote(run.id, run.attempt)
        self.workers[run.id] = worker

    def _launch(self) -> None:
        """Claim queued runs, oldest first, while they fit; one that waits for room lets none pass it.

        Members of a sweep that has as many at work as it wants are passed over.
        """
        limits = {sweep.id: sweep.at_once for sweep in self.store.sweeps("active") if sweep.at_once}
        busy = Counter(worker.sweep for worker in self.workers.values())
        full = [sweep for sweep, limit in limits.items() if busy[sweep] >= limit]
        queued = self.store.queued(passing_over=full)
        total = ray.cluster_resources() if queued else {}
        cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
        for run in queued:
            if run.sweep in limits and busy[run.sweep] >= limits[run.sweep]:
                continue
            wanted = run.resources
            if wanted["cpus"] > cpus or wanted["gpus"] > gpus:
                has = f"the cluster has {cpus:g} and {gpus:g}"
                self.store.hold(run.id, f"waits for {wanted['cpus']:g} CPUs and {wanted['gpus']:g} GPUs: {has}")
                continue
            warm = next((worker for worker in self.idle if worker.suits(run)), None)
            if warm is None and not self._make_room(wanted, cpus, gpus):
                self.store.hold(run.id, "waits for a free worker")
                break
            name = warm.name if warm else worker_name(run.id, run.attempt + 1)
            attempt = self.store.claim(run.id, run.attempt, self.identity, name)
            if attempt is not None:
                self._start(run, attempt, name, warm)
                busy[run.sweep] += 1
        for worker in [worker for worker in self.idle if time.monotonic() - worker.idle_since > KEEP_SECONDS]:
            self._dismiss(worker)

    def _make_room(self, wanted: dict[str, float], cpus: float, gpus: float) -> bool:
        """Whether a new worker fits; idle ones that are in its way are ended, the longest idle first."""
        while True:
            there = [*self.workers.values(), *self.idle]
            lacking = wanted["cpus"] + sum(worker.cpus for worker in there) > cpus + SLACK
            lacking = lacking or wanted["gpus"] + sum(worker.gpus for worker in there) > gpus + SLACK
            if not lacking or not self.idle:
                return not lacking
            self._dismiss(self.idle[0])

    def _dismiss(self, worker: _Worker) -> None:
        self.idle.remove(worker)
        ray.kill(worker.handle)

    def _start(self, run: QueuedRun, attempt: int, name: str, warm: _Worker | None) -> None:
        checkpoint = self.store.newest_checkpoint(run.id)
        worker = warm or self._new_worker(run, name)
        if warm is not None:
            self.idle.remove(warm)
        worker.attempt = attempt
        worker.ended = worker.handle.work.remote(run.id, attempt, run.spec, checkpoint.path if checkpoint else None)
        self.workers[run.id] = worker

    def _new_worker(self, run: QueuedRun, name: str) -> _Worker:
        cpus, gpus = run.resources["cpus"], run.resources["gpus"]
        handle: Any = (
            ray.remote(RunWorker)
            .options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=cpus,
                num_gpus=gpus,
                max_restarts=0,
                max_concurrency=4,
            )
            .remote(self.home, name)
        )
        return _Worker(name, handle, run.sweep, cpus, gpus)

    def _requeue(self, run_id: int, attempt: int, reason: str) -> None:
        try:
            status = self.store.requeue(run_id, attempt, reason)
        except StaleAttempt:
            return  # the run has ended or moved on
        if status != "queued":
            registry().notify("run_finished", run_id=run_id, status=status, reason=reason)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def ensure_dispatcher(store_url: str, home: str, identity: str, address: str) -> None:
    """Start the cluster's dispatcher where it does not run.

    Raises:
        ClusterError: the cluster already serves another lab.
    """
    actor: Any = (
        ray.remote(Dispatcher)
        .options(
            name=DISPATCHER,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources={"node:__internal_head__": 0.001},  # other nodes come and go, a dashboard's among them
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=16,
        )
        .remote(store_url, home, identity, address)
    )
    try:
        served: Any = ray.get(actor.serves.remote(), timeout=START_SECONDS)
    except Exception as error:
        raise ClusterError(f"the dispatcher did not start: {_first_line(error)}", place=f"cluster {address}") from error
    if served != (store_url, home):
        raise ClusterError(
            "the cluster already serves another lab",
            place=f"cluster {address}",
            remedy=f"Use the store and home that it serves (home {served[1]}), or another cluster",
        )

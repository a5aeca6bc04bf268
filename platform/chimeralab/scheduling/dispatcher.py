"""The dispatcher: a detached actor that claims queued runs, starts their workers and writes what they send.

It may be killed at any moment: Ray starts it again, and it finds its workers by their names.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray

from chimeralab.errors import ClusterError, LabError, StaleAttempt
from chimeralab.events import Metrics, load_events
from chimeralab.plugins import registry
from chimeralab.scheduling.cluster import NAMESPACE
from chimeralab.scheduling.worker import DISPATCHER, RunWorker, worker_name
from chimeralab.store import ActiveRun, QueuedRun, Store

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
log = logging.getLogger(__name__)


@dataclass
class _Worker:
    attempt: int
    handle: Any
    ended: Any  # resolves when the worker has reported, fails when it died
    cpus: float
    gpus: float
    cancelling: bool = False


class Dispatcher:
    """One a cluster. `identity` names the cluster in the store, so that only its own dispatcher recovers its runs."""

    def __init__(self, store_url: str, home: str, identity: str, address: str) -> None:
        self.store = Store.open(store_url)
        self.home, self.identity, self.address = home, identity, address
        self.workers: dict[int, _Worker] = {}
        self._heartbeat = 0.0
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
        while True:
            try:
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
            time.sleep(POLL_SECONDS)

    def _beat(self) -> None:
        if time.monotonic() - self._heartbeat >= HEARTBEAT_SECONDS:
            total = ray.cluster_resources()
            resources = {key: total.get(key, 0.0) for key in ("CPU", "GPU", "memory")}
            resources["nodes"] = sum(node["Alive"] for node in ray.nodes())
            self.store.heartbeat(self.identity, self.address, resources)
            self._heartbeat = time.monotonic()

    def _reap(self) -> None:
        """Workers that have ended: those that died leave a run to be queued again."""
        for run_id, worker in list(self.workers.items()):
            ready, _ = ray.wait([worker.ended], timeout=0)
            if not ready:
                continue
            try:
                ray.get(worker.ended)
                reason = "the worker ended without a word"
            except Exception as error:
                reason = f"the worker was lost: {_first_line(error)}"
            self._requeue(run_id, worker.attempt, reason)
            del self.workers[run_id]
            ray.kill(worker.handle)

    def _recover(self) -> None:
        """Active runs: pass on cancellation, find workers after a restart, queue again what has none."""
        for run in self.store.active():
            known = self.workers.get(run.id)
            if known is not None and known.attempt == run.attempt:
                if run.cancel_requested and not known.cancelling:
                    known.handle.cancel.remote()
                    known.cancelling = True
            elif run.cluster == self.identity:
                self._adopt(run)
            elif run.heartbeat_at is None or time.time() - run.heartbeat_at > LEASE_SECONDS:
                self._requeue(run.id, run.attempt, f"its cluster {run.cluster} is gone")

    def _adopt(self, run: ActiveRun) -> None:
        try:
            handle = ray.get_actor(worker_name(run.id, run.attempt), namespace=NAMESPACE)
        except ValueError:
            self._requeue(run.id, run.attempt, "its worker is gone")
            return
        asked = self.store.run(run.id).resources
        self.workers[run.id] = _Worker(run.attempt, handle, handle.join.remote(), asked["cpus"], asked["gpus"])

    def _launch(self) -> None:
        """Claim queued runs, oldest first, while they fit; one that waits for room lets none pass it."""
        queued = self.store.queued()
        if not queued:
            return
        total = ray.cluster_resources()
        cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
        for run in queued:
            wanted = run.resources
            if wanted["cpus"] > cpus or wanted["gpus"] > gpus:
                has = f"the cluster has {cpus:g} and {gpus:g}"
                self.store.hold(run.id, f"waits for {wanted['cpus']:g} CPUs and {wanted['gpus']:g} GPUs: {has}")
                continue
            free_cpus = cpus - sum(worker.cpus for worker in self.workers.values())
            free_gpus = gpus - sum(worker.gpus for worker in self.workers.values())
            if wanted["cpus"] > free_cpus or wanted["gpus"] > free_gpus:
                self.store.hold(run.id, "waits for a free worker")
                return
            attempt = self.store.claim(run.id, run.attempt, self.identity)
            if attempt is not None:
                self._start(run, attempt)

    def _start(self, run: QueuedRun, attempt: int) -> None:
        checkpoint = self.store.newest_checkpoint(run.id)
        cpus, gpus = run.resources["cpus"], run.resources["gpus"]
        handle: Any = (
            ray.remote(RunWorker)
            .options(
                name=worker_name(run.id, attempt),
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=cpus,
                num_gpus=gpus,
                max_restarts=0,
                max_concurrency=4,
            )
            .remote(run.id, attempt, run.spec, self.home, checkpoint.path if checkpoint else None)
        )
        self.workers[run.id] = _Worker(attempt, handle, handle.work.remote(), cpus, gpus)

    def _requeue(self, run_id: int, attempt: int, reason: str) -> None:
        try:
            status = self.store.requeue(run_id, attempt, reason)
        except StaleAttempt:
            return  # the run has ended or moved on
        if status in ("failed", "cancelled"):
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
        served: Any = ray.get(actor.serves.remote(), timeout=120)
    except Exception as error:
        raise ClusterError(f"the dispatcher did not start: {_first_line(error)}", place=f"cluster {address}") from error
    if served != (store_url, home):
        raise ClusterError(
            "the cluster already serves another lab",
            place=f"cluster {address}",
            remedy=f"Use the store and home that it serves (home {served[1]}), or another cluster",
        )

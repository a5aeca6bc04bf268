"""The dispatcher: a detached actor that claims queued runs, starts their workers and writes what they send.

It may be killed at any moment: Ray starts it again, and it finds its workers by their names.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import ray

from chimeralab.errors import ClusterError, LabError, StaleAttempt
from chimeralab.events import Metrics, load_events
from chimeralab.scheduling import nodes
from chimeralab.scheduling.cluster import NAMESPACE, START_SECONDS
from chimeralab.scheduling.hooks import Hooks
from chimeralab.scheduling.pool import Pool, Worker, first_line
from chimeralab.scheduling.sweeping import SweepKeeper
from chimeralab.scheduling.worker import DISPATCHER, worker_name
from chimeralab.store import ActiveRun, QueuedRun, Store, StoreUnavailable
from chimeralab.waiting import Silence

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
log = logging.getLogger(__name__)


class Dispatcher:
    """One a cluster. `identity` names the cluster in the store, so that only its own dispatcher recovers its runs."""

    def __init__(self, store_url: str, home: str, identity: str, address: str) -> None:
        self.store = open_store(store_url)
        self.home, self.identity, self.address = home, identity, address
        self.pool = Pool(home)
        self.hooks = Hooks()
        self.silence = Silence()
        self.sweeps = SweepKeeper(self.store, self.hooks)
        self._heartbeat = 0.0
        threading.Thread(target=self._loop, name="dispatch", daemon=True).start()

    # -- what workers call ----------------------------------------------------------------------------------

    def begin(self, run_id: int, attempt: int, worker: dict[str, Any]) -> None:
        if self.store.begin(run_id, attempt, worker):
            self.hooks.tell("run_started", run_id=run_id, attempt=attempt, spec=self.store.run(run_id).spec)

    def deliver(self, run_id: int, attempt: int, payload: bytes) -> int:
        """Write a batch of events; returns the number of the last one that the store holds."""
        events = load_events(payload)
        appended = self.store.append(run_id, attempt, events)
        measured = [event for event in appended.new if isinstance(event, Metrics)]
        if measured:
            total = self.store.run(run_id).total_steps
            for event in measured:
                self.hooks.tell("run_progress", run_id=run_id, step=event.step, total=total, metrics=event.values)
        self.sweeps.evaluated(run_id, attempt, events)  # those that came before too: it may have been interrupted
        return appended.last

    def finish(self, run_id: int, attempt: int, status: Any, reason: str) -> None:
        ended = self.store.finish(run_id, attempt, status, reason)
        if ended is not None and ended.status != "queued":
            self.hooks.tell("run_finished", run_id=run_id, status=ended.status, reason=ended.reason)

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
                self.silence.forget()  # no cluster can be heard meanwhile
                time.sleep(1)
            except Exception:
                log.exception("dispatch")
                time.sleep(1)
            self._pause()

    def _pause(self) -> None:
        """Until it is time to look again: at once when a worker has ended, so that it soon has the next run."""
        ended = [worker.ended for worker in self.pool.busy.values()]
        if ended:
            ray.wait(ended, timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)

    def _beat(self) -> None:
        if time.monotonic() - self._heartbeat >= HEARTBEAT_SECONDS:
            self.store.heartbeat(self.identity, self.address, nodes.described(nodes.living()))
            self._heartbeat = time.monotonic()

    def _end_strays(self) -> None:
        """Idle workers that the dispatcher before this one has left: they hold room that nobody counts."""
        known = {run.worker.get("name") for run in self.store.active()}
        for name in ray.util.list_named_actors():
            if name.startswith("run-") and name not in known:
                ray.kill(ray.get_actor(name, namespace=NAMESPACE))

    def _reap(self) -> None:
        """Workers that have ended an attempt: those that died leave a run to be queued again."""
        for run_id, worker, reason in self.pool.ended():
            self._requeue(run_id, worker.attempt, reason)
            self.pool.release(run_id)

    def _recover(self) -> None:
        """Active runs: pass on cancellation, find workers after a restart, queue again what has none."""
        for run in self.store.active():
            known = self.pool.busy.get(run.id)
            if known is not None and known.attempt == run.attempt:
                if run.cancel_requested:
                    known.cancel(run.id)
            elif run.cluster == self.identity:
                self._adopt(run)
            elif self.silence.seconds(run.cluster, run.heartbeat_at) > LEASE_SECONDS:
                self._requeue(run.id, run.attempt, f"its cluster {run.cluster} is gone")

    def _adopt(self, run: ActiveRun) -> None:
        name = run.worker.get("name", "")
        try:
            handle = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            self._requeue(run.id, run.attempt, "its worker is gone")
            return
        asked = self.store.run(run.id).resources
        worker = Worker(name, handle, run.worker.get("node", ""), run.sweep, asked["cpus"], asked["gpus"])
        self.pool.adopt(run.id, run.attempt, worker)

    def _launch(self) -> None:
        """Claim queued runs, oldest first, while they fit; one that waits for room lets none pass it.

        Passed over are members of a sweep that has as many at work as it wants, and what no node could ever hold.
        """
        self.pool.dismiss_unneeded()
        limits = {sweep.id: sweep.at_once for sweep in self.store.sweeps("active")}
        busy = Counter(worker.sweep for worker in self.pool.busy.values())
        full = [sweep for sweep, limit in limits.items() if 0 < limit <= busy[sweep]]
        there: list[nodes.Node] = []
        for run in self._waiting(full):
            if run.sweep is not None and run.sweep not in limits:  # its sweep came after we had asked
                limits[run.sweep] = self.store.sweep(run.sweep).at_once
            if run.sweep is not None and 0 < limits[run.sweep] <= busy[run.sweep]:
                continue
            there = there or nodes.living()
            cpus, gpus = run.resources["cpus"], run.resources["gpus"]
            if not any(node.holds(cpus, gpus) for node in there):
                self._hold(run, f"waits for a node with {cpus:g} CPUs and {gpus:g} GPUs: the cluster has none")
                continue
            warm = self.pool.warm(run)
            node = None if warm else self.pool.room(cpus, gpus, there)
            if warm is None and node is None:
                self._hold(run, "waits for a free worker")
                break
            if self._start(run, warm, node):
                busy[run.sweep] += 1

    def _waiting(self, passing_over: Collection[int]) -> Iterator[QueuedRun]:
        after = 0
        while page := self.store.queued(after_id=after, passing_over=passing_over):
            yield from page
            after = page[-1].id

    def _hold(self, run: QueuedRun, reason: str) -> None:
        if run.status_reason != reason:
            self.store.hold(run.id, reason)

    def _start(self, run: QueuedRun, warm: Worker | None, node: nodes.Node | None) -> bool:
        """Claim a run and give it to a worker: a warm one, or a new one on a node. False if another was faster.

        All that the store has to say is read before: a claimed run without a worker costs an attempt.
        """
        spec = self.store.run(run.id).spec
        named = {artifact.role: artifact.path for artifact in self.store.artifacts(run.id)}
        name, place = worker_name(run.id, run.attempt + 1), node.id if node else ""
        if warm is not None:
            name, place = warm.name, warm.node
        attempt = self.store.claim(run.id, run.attempt, self.identity, {"name": name, "node": place})
        if attempt is None:
            return False
        try:
            self.pool.work(warm or self.pool.hire(run, name, place), run.id, attempt, spec, named)
        except Exception as error:  # Ray refuses what is asked for
            self._requeue(run.id, attempt, f"no worker can be started: {first_line(error)}")
        return True

    def _requeue(self, run_id: int, attempt: int, reason: str) -> None:
        try:
            now = self.store.requeue(run_id, attempt, reason)
        except StaleAttempt:
            return  # the run has ended or moved on
        if now.status != "queued":
            self.hooks.tell("run_finished", run_id=run_id, status=now.status, reason=now.reason)


def open_store(url: str) -> Store:
    """Open the store, however long it is away: an actor whose start fails is not started again."""
    while True:
        try:
            return Store.open(url)
        except StoreUnavailable as error:
            log.warning("dispatch: %s", error)
            time.sleep(1)


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
        raise ClusterError(f"the dispatcher did not start: {first_line(error)}", place=f"cluster {address}") from error
    if served != (store_url, home):
        raise ClusterError(
            "the cluster already serves another lab",
            place=f"cluster {address}",
            remedy=f"Use the store and home that it serves (home {served[1]}), or another cluster",
        )

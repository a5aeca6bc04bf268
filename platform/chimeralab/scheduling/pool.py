"""The dispatcher's workers: which run each has, which are idle, and where another has room."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chimeralab.scheduling.cluster import NAMESPACE
from chimeralab.scheduling.nodes import Node
from chimeralab.scheduling.worker import RunWorker
from chimeralab.store import QueuedRun

KEEP_SECONDS = 15.0  # an idle worker stays so long for the next member of its sweep


@dataclass
class Worker:
    """A worker process and the attempt that it has. Only members of a sweep share one, and only among themselves."""

    name: str
    handle: Any
    node: str
    sweep: int | None
    cpus: float
    gpus: float
    attempt: int = 0
    ended: Any = None  # resolves when the attempt was reported, fails when the worker died
    reusable: bool = False
    cancelling: bool = False
    idle_since: float = 0.0

    def suits(self, run: QueuedRun) -> bool:
        asked = (run.resources["cpus"], run.resources["gpus"])
        return run.sweep is not None and (run.sweep, asked) == (self.sweep, (self.cpus, self.gpus))

    def cancel(self, run_id: int) -> None:
        if not self.cancelling:
            self.handle.cancel.remote(run_id, self.attempt)
            self.cancelling = True


class Pool:
    """Each worker is in one of two places: beside its run in `busy`, or in `idle`, the longest idle first."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.busy: dict[int, Worker] = {}
        self.idle: list[Worker] = []

    def hire(self, run: QueuedRun, name: str, node: str) -> Worker:
        """Start a worker process on a node."""
        cpus, gpus = run.resources["cpus"], run.resources["gpus"]
        remote: Any = ray.remote  # Ray's annotations leave out the groups
        # cancelling has a thread of its own: the others may all wait for the end of an attempt
        actor = remote(concurrency_groups={"cancel": 1})(RunWorker)
        handle = actor.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            max_restarts=0,
            max_concurrency=4,
        ).remote(self.home, name)
        return Worker(name, handle, node, run.sweep, cpus, gpus)

    def work(self, worker: Worker, run_id: int, attempt: int, spec: dict[str, Any], named: dict[str, str]) -> None:
        """Give a worker an attempt; `named` are the run's checkpoints that the store names, by role."""
        self._take(run_id, worker, attempt, worker.handle.work.remote(run_id, attempt, spec, named))

    def adopt(self, run_id: int, attempt: int, worker: Worker) -> None:
        """Wait for the end of an attempt that a dispatcher before this one, or a call that broke, has given out."""
        known = next((idle for idle in self.idle if idle.name == worker.name), worker)
        self._take(run_id, known, attempt, known.handle.join.remote(run_id, attempt))

    def _take(self, run_id: int, worker: Worker, attempt: int, ended: Any) -> None:
        if worker in self.idle:
            self.idle.remove(worker)
        worker.attempt, worker.ended, worker.cancelling, worker.reusable = attempt, ended, False, False
        self.busy[run_id] = worker

    def ended(self) -> Iterator[tuple[int, Worker, str]]:
        """Runs whose attempt is over, with what there is to say if nobody has reported it. Then call `release`."""
        for run_id, worker in list(self.busy.items()):
            if not ray.wait([worker.ended], timeout=0)[0]:
                continue
            try:
                worker.reusable = ray.get(worker.ended)
                told = "the worker ended without a word"
            except ray.exceptions.RayTaskError as error:
                told = f"the worker could not run it: {first_line(error.cause)}"
            except ray.exceptions.RayError as error:
                told = f"the worker was lost: {first_line(error)}"
            yield run_id, worker, told

    def release(self, run_id: int) -> None:
        """Keep the worker of a run that has ended for the next of its sweep, or end it."""
        worker = self.busy.pop(run_id)
        if worker.reusable and worker.sweep is not None:
            worker.idle_since = time.monotonic()
            self.idle.append(worker)
        else:
            ray.kill(worker.handle)

    def warm(self, run: QueuedRun) -> Worker | None:
        """An idle worker for this run."""
        return next((worker for worker in self.idle if worker.suits(run)), None)

    def room(self, cpus: float, gpus: float, nodes: Sequence[Node]) -> Node | None:
        """A node where a new worker fits: where it needs the fewest idle ones ended, who are in its way."""
        found = [(node, in_its_way) for node in nodes if (in_its_way := self._in_its_way(cpus, gpus, node)) is not None]
        if not found:
            return None
        node, in_its_way = min(found, key=lambda place: len(place[1]))  # the first of equals
        for worker in in_its_way:
            self.dismiss(worker)
        return node

    def _in_its_way(self, cpus: float, gpus: float, node: Node) -> list[Worker] | None:
        """Idle workers of a node, the longest idle first, without whom a new one fits there; None: it never does."""
        there = [worker for worker in (*self.busy.values(), *self.idle) if worker.node == node.id]
        cpus += sum(worker.cpus for worker in there)
        gpus += sum(worker.gpus for worker in there)
        ended: list[Worker] = []
        for worker in (idle for idle in self.idle if idle.node == node.id):
            lacks_cpus, lacks_gpus = not node.holds(cpus, 0), not node.holds(0, gpus)
            if (lacks_cpus and worker.cpus) or (lacks_gpus and worker.gpus):
                ended.append(worker)
                cpus, gpus = cpus - worker.cpus, gpus - worker.gpus
        for worker in [*ended]:  # larger ones that came after may have made the room alone
            if node.holds(cpus + worker.cpus, gpus + worker.gpus):
                ended.remove(worker)
                cpus, gpus = cpus + worker.cpus, gpus + worker.gpus
        return ended if node.holds(cpus, gpus) else None

    def dismiss(self, worker: Worker) -> None:
        """End an idle worker."""
        self.idle.remove(worker)
        ray.kill(worker.handle)

    def dismiss_unneeded(self) -> None:
        """End those that nothing came for in time."""
        for worker in [worker for worker in self.idle if time.monotonic() - worker.idle_since > KEEP_SECONDS]:
            self.dismiss(worker)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

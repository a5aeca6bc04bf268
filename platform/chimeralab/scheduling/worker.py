"""The worker: one Ray actor for one attempt of a run, with the processors and GPUs that the run asked for."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray

from chimeralab.errors import StaleAttempt
from chimeralab.events import Event, Log, dump_events
from chimeralab.runs import RunSpec
from chimeralab.scheduling.cluster import NAMESPACE
from chimeralab.scheduling.courier import RETRY_SECONDS, Courier
from chimeralab.store import StoreUnavailable

DISPATCHER = "dispatcher"
CALL_SECONDS = 30
T = TypeVar("T")


class Away(Exception):
    """The dispatcher or the database does not answer at present: the same call may succeed later."""


def worker_name(run_id: int, attempt: int) -> str:
    return f"run-{run_id}-attempt-{attempt}"


class RunWorker:
    """Runs one attempt. Detached, so that it outlives the dispatcher; it ends itself when it is stale."""

    def __init__(self, run_id: int, attempt: int, spec: dict[str, Any], home: str, resume: str | None) -> None:
        self.run_id, self.attempt = run_id, attempt
        self.spec, self.home, self.resume = RunSpec.model_validate(spec), Path(home), resume
        self.courier = Courier(self._deliver, away=Away)
        self._done = threading.Event()

    def work(self) -> None:
        """Run to the end and report it. Blocks."""
        try:
            worker = {
                "host": platform.node(),
                "pid": os.getpid(),
                "node": ray.get_runtime_context().get_node_id(),
            }
            _insist(lambda: _call("begin", self.run_id, self.attempt, worker))
            status, reason = self._execute()
            self.courier.flush()
            if self.courier.broken is not None:
                status, reason = "failed", f"its events cannot be stored: {self.courier.broken}"
            if not self.courier.stale:
                _insist(lambda: _call("finish", self.run_id, self.attempt, status, reason))
        except StaleAttempt:
            pass  # another attempt has taken over: nothing of ours may be written any more
        finally:
            self.courier.close()
            self._done.set()

    def join(self) -> None:
        """Return when `work` has ended; a restarted dispatcher waits here for a worker that it finds."""
        self._done.wait()

    def cancel(self) -> None:
        self.courier.request_stop()

    def _execute(self) -> tuple[str, str]:
        from chimeralab.runs.execute import describe_failure, execute
        from chimeralab.runs.trainer import Cancelled

        try:
            execute(
                self.spec,
                folder=self.home / "runs" / str(self.run_id),
                cache=self.home / "cache",
                sink=self.courier,
                resume=Path(self.resume) if self.resume else None,
            )
        except Cancelled:
            return "cancelled", "cancelled by its user"
        except Exception as error:
            import traceback

            self.courier.emit(Log(level="error", message=traceback.format_exc()))
            return "failed", describe_failure(error)
        return "completed", ""

    def _deliver(self, events: Sequence[Event]) -> int:
        return int(_call("deliver", self.run_id, self.attempt, dump_events(events)))


def _call(method: str, *args: Any) -> Any:
    """Ask the dispatcher; it is looked up by name each time because it may have been restarted."""
    try:
        dispatcher = ray.get_actor(DISPATCHER, namespace=NAMESPACE)
    except ValueError as error:
        raise Away from error
    try:
        return ray.get(getattr(dispatcher, method).remote(*args), timeout=CALL_SECONDS)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StoreUnavailable):
            raise Away from error
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise Away from error


def _insist(call: Callable[[], T]) -> T:
    """Repeat a call while the dispatcher or the database is away. The calls are safe to repeat."""
    wait = 0.25
    while True:
        try:
            return call()
        except Away:
            time.sleep(wait)
            wait = min(2 * wait, RETRY_SECONDS)

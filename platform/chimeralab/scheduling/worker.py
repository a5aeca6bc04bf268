"""The worker: a Ray actor that runs attempts one after another, with the processors and GPUs that they asked for.

A fresh process costs seconds before its first step: importing torch, a CUDA context, compiled kernels. Members of a
sweep are often shorter than that, so a worker takes one after another. It does so only while nothing is in doubt: a
run that ended by an error that we do not know the reason of, or by the device's, ends its worker too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import ray

from chimeralab.errors import LabError, StaleAttempt, described
from chimeralab.events import Event, Log, dump_events
from chimeralab.runs import RunSpec
from chimeralab.runs.sink import Sink
from chimeralab.scheduling.cluster import NAMESPACE
from chimeralab.scheduling.courier import RETRY_SECONDS, Courier
from chimeralab.store import StoreUnavailable

DISPATCHER = "dispatcher"
CALL_SECONDS = 30
IDLE_SECONDS = 120.0  # a worker that nobody has given work for so long ends itself
T = TypeVar("T")


class Away(Exception):
    """The dispatcher or the database does not answer at present: the same call may succeed later."""


def worker_name(run_id: int, attempt: int) -> str:
    """The name of a worker that is started for this attempt; it keeps it while it runs others."""
    return f"run-{run_id}-attempt-{attempt}"


class RunWorker:
    """Runs one attempt at a time. Detached, so that it outlives the dispatcher; it ends itself when it is stale."""

    def __init__(self, home: str, name: str) -> None:
        self.home, self.name = Path(home), name
        self._thread = ThreadPoolExecutor(1, "run")  # torch keeps handles and pools for each thread: use one
        self._changed = threading.Condition()
        self._current: tuple[int, int] | None = None
        self._courier: Courier | None = None
        self._cancelled: tuple[int, int] | None = None
        self._reusable = True
        self._idle_since = time.monotonic()
        threading.Thread(target=self._end_when_idle, name="idle", daemon=True).start()

    def work(self, run_id: int, attempt: int, spec: dict[str, Any], named: dict[str, str]) -> bool:
        """Run an attempt to the end and report it; returns whether this process may run another. Blocks.

        `named` are the run's checkpoints that the store names, by role.
        """
        with self._changed:
            self._current = (run_id, attempt)
        try:
            self._reusable = self._thread.submit(self._attempt, run_id, attempt, spec, named).result()
        finally:
            with self._changed:
                self._current, self._idle_since = None, time.monotonic()
                self._changed.notify_all()
        return self._reusable

    def join(self, run_id: int, attempt: int) -> bool:
        """Return as `work` does when this attempt has ended; a restarted dispatcher waits here."""
        with self._changed:
            self._changed.wait_for(lambda: self._current != (run_id, attempt))
        return self._reusable

    @ray.method(concurrency_group="cancel")
    def cancel(self, run_id: int, attempt: int) -> None:
        self._cancelled = (run_id, attempt)  # it may not have begun yet
        courier = self._courier
        if courier is not None and self._current == (run_id, attempt):
            courier.request_stop()

    def _attempt(self, run_id: int, attempt: int, spec: dict[str, Any], named: dict[str, str]) -> bool:
        def deliver(events: Sequence[Event]) -> int:
            return int(_call("deliver", run_id, attempt, dump_events(events)))

        courier = self._courier = Courier(deliver, away=Away)
        if self._cancelled == (run_id, attempt):
            courier.request_stop()
        reusable = False
        try:
            worker = {
                "name": self.name,
                "host": platform.node(),
                "pid": os.getpid(),
                "node": ray.get_runtime_context().get_node_id(),
            }
            _insist(lambda: _call("begin", run_id, attempt, worker))
            status, reason, reusable = self._execute(run_id, attempt, spec, named, courier)
            courier.flush()
            if courier.broken is not None:
                status, reason = "failed", f"its events cannot be stored: {courier.broken}"
            if courier.stale:
                return False
            _insist(lambda: _call("finish", run_id, attempt, status, reason))
        except StaleAttempt:
            return False  # another attempt has taken over: nothing of ours may be written any more
        finally:
            courier.close()
            self._courier = None
        return reusable and _forget()

    def _execute(
        self, run_id: int, attempt: int, spec: dict[str, Any], named: dict[str, str], sink: Sink
    ) -> tuple[str, str, bool]:
        """(status, reason, whether this process is as good as before)."""
        try:
            # imported here: a package that is missing on this node, or a spec of another version, fails this run alone
            from chimeralab.runs.checkpoint import clear
            from chimeralab.runs.execute import execute
            from chimeralab.runs.trainer import Cancelled

            checkpoints = {role: Path(path) for role, path in named.items()}
            folder = self.home / "runs" / str(run_id)
            clear(folder, checkpoints.values())
            try:
                execute(
                    RunSpec.model_validate(spec),
                    folder=folder / f"attempt-{attempt}",
                    cache=self.home / "cache",
                    sink=sink,
                    resume=checkpoints.get("newest"),
                    best=checkpoints.get("best"),
                )
            except Cancelled:
                return "cancelled", "cancelled by its user", True
        except Exception as error:
            sink.emit(Log(level="error", message=traceback.format_exc()))
            # What the lab says by itself (a loss that is not finite) harms nothing; what torch or CUDA said may.
            return "failed", described(error), isinstance(error, LabError) and error.__cause__ is None
        return "completed", "", True

    def _end_when_idle(self) -> None:
        while True:
            time.sleep(5)
            if self._current is None and time.monotonic() - self._idle_since > IDLE_SECONDS:
                os._exit(0)


def _forget() -> bool:
    """Free what a run has left, so that the next one finds a process as good as new; False when it is not."""
    import torch

    try:
        gc.collect()
        if not gc.get_freeze_count():
            gc.freeze()  # what is there after the first run (torch, plugins) stays: later collections pass over it
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()  # compiled models are kept by their code, which all runs share, up to a limit
        if sys.platform == "linux":  # give freed memory back, so that the next run's peak is its own
            getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # an error of the device comes up here, before another run starts
            torch.cuda.empty_cache()
    except Exception:
        return False
    return True


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

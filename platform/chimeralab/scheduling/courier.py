"""Brings a worker's events to the store: in order, in batches, each exactly once, whatever breaks in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from chimeralab.errors import StaleAttempt
from chimeralab.events import Event

BATCH = 500
PAUSE_SECONDS = 0.25
RETRY_SECONDS = 10.0


class Courier:
    """A sink that numbers events and hands them to `deliver` on a thread of its own.

    `deliver` returns the number of the last event that the store holds. When it raises `away`, the same events are
    offered again later (the store passes over what it has). StaleAttempt ends the attempt quietly; anything else is
    kept in `broken` and ends it too. Training never waits.
    """

    def __init__(self, deliver: Callable[[Sequence[Event]], int], *, away: type[Exception]) -> None:
        self._deliver, self._away = deliver, away
        self._pending: list[Event] = []
        self._numbered = 0
        self._acknowledged = 0
        self._stop = threading.Event()
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self.stale = False
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> int:
        with self._changed:
            self._numbered += 1
            self._pending.append(event.model_copy(update={"seq": self._numbered}))
            return self._numbered

    @property
    def acknowledged(self) -> int:
        return self._acknowledged

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        self._stop.set()

    def flush(self) -> None:
        """Deliver now, and wait until everything emitted is acknowledged, or never can be."""
        self._wake.set()
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._acknowledged >= self._numbered)

    @property
    def _over(self) -> bool:
        return self.stale or self.broken is not None

    def close(self) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        wait = PAUSE_SECONDS
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            if self._closing.is_set():
                return
            with self._changed:
                batch = self._pending[:BATCH]
            if not batch:
                wait = PAUSE_SECONDS
                continue
            try:
                last = self._deliver(batch)
            except self._away:
                wait = min(max(2 * wait, PAUSE_SECONDS), RETRY_SECONDS)
                continue
            except Exception as error:
                with self._changed:
                    self.stale = isinstance(error, StaleAttempt)
                    self.broken = None if self.stale else error
                    self._stop.set()
                    self._changed.notify_all()
                return
            with self._changed:
                self._acknowledged = last
                self._pending = [event for event in self._pending if event.seq > last]
                wait = 0.0 if len(self._pending) >= BATCH else PAUSE_SECONDS
                self._changed.notify_all()

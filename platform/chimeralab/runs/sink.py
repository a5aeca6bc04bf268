"""Where a run's events go."""

from __future__ import annotations

from typing import Protocol

from chimeralab.events import Event


class Sink(Protocol):
    """Takes events in order. `acknowledged` is how many of them are safe: stored, never to be lost."""

    def emit(self, event: Event) -> int:
        """Hand over an event; returns its number, from 1."""

    @property
    def acknowledged(self) -> int: ...

    @property
    def stale(self) -> bool:
        """Another attempt has taken over: nothing of this one is wanted any more."""

    def stop_requested(self) -> bool:
        """The run should end: it was cancelled, or another attempt has taken over."""


class Listing:
    """A sink that keeps the events in memory: for notebooks and tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.stop = False
        self.stale = False

    def emit(self, event: Event) -> int:
        self.events.append(event)
        return len(self.events)

    @property
    def acknowledged(self) -> int:
        return len(self.events)

    def stop_requested(self) -> bool:
        return self.stop

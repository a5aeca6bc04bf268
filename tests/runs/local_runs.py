"""What the fixtures of this folder give, and how their events are read."""

from __future__ import annotations

from collections.abc import Callable

from chimeralab import RunSpec
from chimeralab.events import Event, Metrics

MakeSpec = Callable[..., RunSpec]
Execute = Callable[..., list[Event]]

TIMED = ("tokens_per_second", "flops_utilisation", "peak_memory_bytes")


def curve_of(events: list[Event]) -> list[tuple[int, int, str, float]]:
    """Everything measured that does not depend on the clock or the machine: (step, tokens, metric, value)."""
    return [
        (event.step, event.tokens, name, value)
        for event in events
        if isinstance(event, Metrics)
        for name, value in event.values.items()
        if not name.endswith(TIMED)
    ]


def values_of(events: list[Event], metric: str) -> list[float]:
    return [event.values[metric] for event in events if isinstance(event, Metrics) and metric in event.values]

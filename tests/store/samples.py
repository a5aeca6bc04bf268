"""Short ways to a run in a given state, through the store's own calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chimeralab.events import Metrics
from chimeralab.store import NewRun, Store


def new_run(name: str = "baseline", **changes: Any) -> NewRun:
    values: dict[str, Any] = {
        "name": name,
        "project": "tests",
        "spec": {"stack": {"width": 64}},
        "spec_hash": "abc123",
        "pattern": "4 * (mamba2 mlp)",
        "task": "copying",
        "total_steps": 100,
        "max_attempts": 2,
        "resources": {"gpus": 0.5},
    }
    return NewRun(**values | changes)


def running(store: Store, name: str = "baseline", **changes: Any) -> int:
    """A run whose first attempt has begun."""
    run_id = store.create_run(new_run(name, **changes))
    attempt = store.claim(run_id, 0)
    assert attempt == 1
    store.begin(run_id, attempt, {"host": "here"})
    return run_id


def curve(values: Mapping[int, float], metric: str = "loss", *, first_seq: int = 1) -> list[Metrics]:
    """One event for each step."""
    return [
        Metrics(seq=first_seq + index, step=step, tokens=step * 10, seconds=step / 4, values={metric: value})
        for index, (step, value) in enumerate(values.items())
    ]


def points(store: Store, run_id: int, metric: str = "loss") -> Iterable[tuple[int, float]]:
    found = store.curve(run_id, metric)
    return list(zip(found.steps, found.y, strict=True))

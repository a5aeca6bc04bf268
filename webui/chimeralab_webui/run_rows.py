"""Runs as the browser gets them: plain values, numbers unformatted, a stack as its mixers' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chimeralab import Lab

ACTIVE = ("queued", "starting", "running")
SHOWN_METRICS = ("validation/loss", "validation/bits_per_byte", "validation/accuracy")


class RunRows:
    """Rows of one lab. What never changes once measured (a run's parameters) is asked for once."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._params: dict[int, int] = {}

    def of(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Table rows of `RunRow`s, with the last value of a few metrics."""
        summaries = self.lab.summaries([row.id for row in rows])
        return [self._row(row, summaries[row.id]) for row in rows]

    def _row(self, row: Any, summaries: dict[str, Any]) -> dict[str, Any]:
        last = {name: summaries[name].last for name in SHOWN_METRICS if name in summaries}
        return {
            "id": row.id,
            "name": row.name,
            "project": row.project,
            "status": row.status,
            "cancelling": row.cancel_requested and row.status in ACTIVE,
            "reason": row.status_reason,
            "pattern": row.pattern,
            "mixers": [layer["mixer"] for layer in row.spec["stack"]["layers"]],
            "task": row.task,
            "phase": row.phase,
            "step": row.step,
            "total_steps": row.total_steps,
            "seconds": row.seconds,
            "tokens_per_second": row.tokens_per_second or _last(summaries, "train/tokens_per_second"),
            "loss": last.get("validation/loss", _last(summaries, "train/loss")),
            "bits_per_byte": last.get("validation/bits_per_byte"),
            "accuracy": last.get("validation/accuracy"),
            "params": self._parameters(row),
            "attempt": row.attempt,
            "created_at": row.created_at,
            "archived": row.archived,
            "tags": list(row.tags),
        }

    def _parameters(self, row: Any) -> int | None:
        if row.id not in self._params and row.attempt:
            environments = self.lab.events(row.id, kinds=["environment"], limit=1)
            if environments:
                self._params[row.id] = environments[0].payload.get("parameters")
        return self._params.get(row.id)


def _last(summaries: dict[str, Any], name: str) -> float | None:
    return summaries[name].last if name in summaries else None


def colors(lab: Lab) -> dict[str, str]:
    """A mixer's colour by its name."""
    return {entry.name: entry.color for entry in lab.palette() if entry.kind == "mixer"}

"""What a batch of events changes in the database, inside the transaction of `Store.append`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, insert, select, update

from chimeralab.store.database import insert_missing, upsert
from chimeralab.store.models import Artifact, EventRecord, Metric, Point, Profile, Run, Summary
from chimeralab.store.rows import MetricSummary
from chimeralab.store.types import storable

if TYPE_CHECKING:  # pydantic takes longer to import than this whole package
    from chimeralab.events import Checkpoint, Event, Metrics, Progress
    from chimeralab.events import Profile as ProfileEvent


def ingest(connection: Connection, run_id: int, attempt: int, events: Sequence[Event]) -> None:
    """Write events that are new. The caller holds the lock on the run's row."""
    measured: list[Metrics] = []
    progress: Progress | None = None
    checkpoints: dict[str, Checkpoint] = {}
    profiles: dict[tuple[str, int], ProfileEvent] = {}
    records: list[dict[str, Any]] = []
    for event in events:
        if event.kind == "metrics":
            measured.append(event)
        elif event.kind == "progress":
            progress = event
        elif event.kind == "checkpoint":
            checkpoints[event.role] = event
        elif event.kind == "profile":
            profiles[event.name, event.context] = event
        else:
            plain = event.model_dump(exclude={"seq", "time", "kind"})
            payload = event.values if event.kind == "environment" else plain
            records.append({"seq": event.seq, "time": event.time, "kind": event.kind, "payload": payload})

    owner = {"run_id": run_id, "attempt": attempt}
    _measure(connection, run_id, attempt, measured)
    upsert(connection, Artifact, (owner | _fields(event) for event in checkpoints.values()))
    upsert(connection, Profile, (owner | _fields(event) for event in profiles.values()))
    if records:
        connection.execute(insert(EventRecord), [owner | record for record in records])
    if progress:
        connection.execute(
            update(Run)
            .where(Run.id == run_id)
            .values(
                step=progress.step,
                total_steps=progress.total,
                seconds=progress.seconds,
                tokens_per_second=progress.tokens_per_second,
                phase=progress.phase,
            )
        )


def _fields(event: Checkpoint | ProfileEvent) -> dict[str, Any]:
    return event.model_dump(exclude={"seq", "kind"})


def _measure(connection: Connection, run_id: int, attempt: int, events: Sequence[Metrics]) -> None:
    if not events:
        return
    numbers = _metric_ids(connection, {storable(name) for event in events for name in event.values})
    points: dict[tuple[int, int], dict[str, Any]] = {}  # by metric and step: the last word counts
    curves: dict[int, dict[int, float]] = {}
    for event in events:
        for name, value in event.values.items():
            metric = numbers.get(name) or numbers[storable(name)]
            curves.setdefault(metric, {})[event.step] = value
            points[metric, event.step] = {
                "run_id": run_id,
                "metric_id": metric,
                "step": event.step,
                "value": value,
                "tokens": event.tokens,
                "seconds": event.seconds,
                "attempt": attempt,
            }
    # In the order of the primary key, which is how SQLite stores them.
    upsert(connection, Point, (points[key] for key in sorted(points)))
    _summarise(connection, run_id, curves)


def _metric_ids(connection: Connection, names: Collection[str]) -> dict[str, int]:
    known = select(Metric.name, Metric.id).where(Metric.name.in_(names))
    found = {row.name: row.id for row in connection.execute(known)}
    if len(found) < len(names):
        # Sorted: two runs that bring the same new names in another order would wait for each other for ever.
        insert_missing(connection, Metric, [{"name": name} for name in sorted(set(names) - set(found))])
        found = {row.name: row.id for row in connection.execute(known)}
    return found


def _summarise(connection: Connection, run_id: int, curves: Mapping[int, Mapping[int, float]]) -> None:
    stored = {
        row.metric_id: MetricSummary(row.last, row.step, row.min, row.max)
        for row in connection.execute(
            select(Summary.metric_id, Summary.last, Summary.step, Summary.min, Summary.max).where(
                Summary.run_id == run_id, Summary.metric_id.in_(curves)
            )
        )
    }
    rows = []
    for metric, curve in curves.items():
        before = stored.get(metric)
        if before and min(curve) <= before.step:
            # Points were replaced, perhaps the least or the greatest one: only the whole curve knows.
            summary = _recount(connection, run_id, metric)
        else:
            step, ends = max(curve), (before.min, before.max) if before else ()
            least, greatest = _extremes([*curve.values(), *ends])
            summary = MetricSummary(curve[step], step, least, greatest)
        rows.append(
            {
                "run_id": run_id,
                "metric_id": metric,
                "step": summary.step,
                "last": summary.last,
                "min": summary.min,
                "max": summary.max,
            }
        )
    upsert(connection, Summary, rows)


def _recount(connection: Connection, run_id: int, metric: int) -> MetricSummary:
    curve = (Point.run_id == run_id, Point.metric_id == metric)
    least, greatest = connection.execute(select(func.min(Point.value), func.max(Point.value)).where(*curve)).one()
    newest = select(Point.value, Point.step).where(*curve).order_by(Point.step.desc()).limit(1)
    last, step = connection.execute(newest).one()
    return MetricSummary(last, step, least, greatest)


def _extremes(values: Iterable[float]) -> tuple[float, float]:
    numbers = [value for value in values if not math.isnan(value)]
    return min(numbers, default=math.nan), max(numbers, default=math.nan)

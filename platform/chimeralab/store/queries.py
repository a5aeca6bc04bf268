"""The read side of the store. Nothing here scans the points but the curve that is asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    Connection,
    Double,
    Select,
    UnaryExpression,
    and_,
    false,
    func,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.orm import InstrumentedAttribute

from chimeralab.errors import RequestError, did_you_mean
from chimeralab.store import models
from chimeralab.store.curve import thin
from chimeralab.store.database import Database
from chimeralab.store.models import Metric, Point, Project, Run, Summary, Sweep, SweepMember, Tag
from chimeralab.store.rows import (
    ArtifactRow,
    AttemptRow,
    Curve,
    EventRow,
    MetricSummary,
    PluginRow,
    ProfileRow,
    RunFilter,
    RunPage,
    RunRow,
)
from chimeralab.store.transitions import no_run

T = TypeVar("T")

_ORDERS: dict[str, InstrumentedAttribute[Any]] = {
    "id": Run.id,
    "created": Run.created_at,
    "started": Run.started_at,
    "ended": Run.ended_at,
    "name": Run.name,
    "project": Project.name,
    "status": Run.status,
    "task": Run.task,
    "step": Run.step,
    "seconds": Run.seconds,
    "tokens_per_second": Run.tokens_per_second,
}
_SUMMARIES = {"last": Summary.last, "min": Summary.min, "max": Summary.max}
_RUN_COLUMNS = [getattr(Run, name) for name in RunRow.__slots__ if name not in {"project", "tags"}]


class Queries:
    """Questions to the database. Each is answered from one transaction and may be asked from any thread."""

    _database: Database

    def run(self, run_id: int) -> RunRow:
        with self._database.reading() as connection:
            rows = _run_rows(connection, [run_id])
        if not rows:
            raise no_run(run_id)
        return rows[0]

    def find(self, reference: str) -> int:
        """The run with this id, or else the only run with this name."""
        with self._database.reading() as connection:
            if reference.isascii() and reference.isdigit() and len(reference) < 19:
                number = connection.scalar(select(Run.id).where(Run.id == int(reference)))
                if number is not None:
                    return number
            named = connection.scalars(select(Run.id).where(Run.name == reference).order_by(Run.id)).all()
            if len(named) == 1:
                return named[0]
            recent = connection.scalars(select(Run.name).order_by(Run.id.desc()).limit(1000)).all()
        if named:
            remedy = f"Use an id: {', '.join(map(str, named[-5:]))}"
            raise RequestError(f"{len(named)} runs have this name", place=f"run {reference!r}", remedy=remedy)
        remedy = did_you_mean(reference, recent)
        raise RequestError("there is no such run", place=f"run {reference!r}", remedy=remedy)

    def runs(self, wanted: RunFilter = RunFilter()) -> RunPage:  # noqa: B008 (frozen)
        """One page of the runs that the filter selects."""
        conditions = _conditions(wanted)
        # Order ids alone and read whole rows for one page: sorting would carry the long specs along.
        page = _ordered(select(Run.id).where(*conditions), wanted.order_by)
        page = page.limit(wanted.limit).offset(wanted.offset)
        with self._database.reading() as connection:
            ids = connection.scalars(page).all()
            total = connection.scalar(select(func.count()).select_from(Run).where(*conditions))
            return RunPage(_run_rows(connection, ids), total or 0)

    def attempts(self, run_id: int) -> list[AttemptRow]:
        query = columns_of(models.Attempt, AttemptRow).where(models.Attempt.run_id == run_id)
        return self._all(AttemptRow, query.order_by(models.Attempt.attempt))

    def metrics(self, run_id: int) -> list[str]:
        """Names of the metrics that the run has points of."""
        query = select(Metric.name).join(Summary, Summary.metric_id == Metric.id)
        with self._database.reading() as connection:
            return sorted(connection.scalars(query.where(Summary.run_id == run_id)))

    def summaries(self, run_ids: Collection[int]) -> dict[int, dict[str, MetricSummary]]:
        """For each run, in the order given, its metrics by name; empty for a run that measured nothing."""
        found: dict[int, dict[str, MetricSummary]] = {run_id: {} for run_id in run_ids}
        columns = (Summary.run_id, Metric.name, Summary.last, Summary.step, Summary.min, Summary.max)
        query = select(*columns).join(Metric, Metric.id == Summary.metric_id).order_by(Metric.name)
        with self._database.reading() as connection:
            for some in portions(run_ids):
                for row in connection.execute(query.where(Summary.run_id.in_(some))):
                    found[row.run_id][row.name] = MetricSummary(row.last, row.step, row.min, row.max)
        return found

    def curve(
        self,
        run_id: int,
        metric: str,
        *,
        x: Literal["step", "tokens", "seconds"] = "step",
        max_points: int | None = None,
    ) -> Curve:
        """The metric's values in the order of their steps; empty when there are none.

        `max_points` thins the curve and keeps its first and last point, its spikes and its NaN.
        """
        # Read as plain doubles and turned to NaN below: a call of the column type for each is too slow.
        across = {
            "step": Point.step,
            "tokens": Point.tokens,
            "seconds": type_coerce(Point.seconds, Double),
        }[x]
        number = select(Metric.id).where(Metric.name == metric).scalar_subquery()
        query = select(Point.step, across.label("x"), type_coerce(Point.value, Double).label("y"))
        query = query.where(Point.run_id == run_id, Point.metric_id == number).order_by(Point.step)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        values = [math.nan if row[2] is None else row[2] for row in rows]
        kept = range(len(rows)) if max_points is None else thin(values, max_points)
        return Curve(
            x=[math.nan if rows[index][1] is None else float(rows[index][1]) for index in kept],
            y=[values[index] for index in kept],
            steps=[rows[index][0] for index in kept],
        )

    def events(
        self,
        run_id: int,
        *,
        kinds: Sequence[str] | None = None,
        after_id: int = 0,
        limit: int = 500,
        newest: bool = False,
    ) -> list[EventRow]:
        """Logs, samples, environments, changes of status, oldest first; `newest` takes the last `limit`."""
        record = models.EventRecord
        query = columns_of(record, EventRow).where(record.run_id == run_id, record.id > after_id).limit(limit)
        if kinds is not None:
            query = query.where(record.kind.in_(kinds))
        rows = self._all(EventRow, query.order_by(record.id.desc() if newest else record.id))
        return rows[::-1] if newest else rows

    def profiles(self, run_ids: Collection[int]) -> list[ProfileRow]:
        """Measurements of speed and memory, by run, name and context."""
        profile = models.Profile
        query = columns_of(profile, ProfileRow).order_by(profile.run_id, profile.name, profile.context)
        every = sorted(run_ids)
        return [row for some in portions(every) for row in self._all(ProfileRow, query.where(profile.run_id.in_(some)))]

    def artifacts(self, run_id: int) -> list[ArtifactRow]:
        """The run's checkpoints, by role."""
        artifact = models.Artifact
        query = columns_of(artifact, ArtifactRow).where(artifact.run_id == run_id)
        return self._all(ArtifactRow, query.order_by(artifact.role))

    def projects(self) -> list[str]:
        with self._database.reading() as connection:
            return sorted(connection.scalars(select(Project.name)))

    def tags(self) -> list[str]:
        """Every tag in use."""
        with self._database.reading() as connection:
            return sorted(connection.scalars(select(Tag.tag).distinct()))

    def plugins(self, run_id: int) -> list[PluginRow]:
        plugin = models.RunPlugin
        query = columns_of(plugin, PluginRow).where(plugin.run_id == run_id)
        return self._all(PluginRow, query.order_by(plugin.name))

    def _all(self, row: type[T], query: Any) -> list[T]:
        return all_rows(self._database, row, query)


def all_rows(database: Database, row: type[T], query: Any) -> list[T]:
    """What a query finds, as rows of this kind."""
    with database.reading() as connection:
        return [row(*values) for values in connection.execute(query)]


def columns_of(table: type[models.Base], row: type[Any]) -> Select[Any]:
    """The columns of a table that a row's fields name."""
    return select(*(getattr(table, name) for name in row.__slots__))


def _run_rows(connection: Connection, ids: Sequence[int]) -> list[RunRow]:
    """The runs with these ids, in their order; unknown ones are left out."""
    tags: dict[int, list[str]] = {}
    found: dict[int, RunRow] = {}
    for some in portions(ids):
        for run_id, tag in connection.execute(select(Tag.run_id, Tag.tag).where(Tag.run_id.in_(some))):
            tags.setdefault(run_id, []).append(tag)
        query = select(Project.name.label("project"), *_RUN_COLUMNS).join(Project, Project.id == Run.project_id)
        for row in connection.execute(query.where(Run.id.in_(some))).mappings():
            found[row["id"]] = RunRow(**row, tags=tuple(sorted(tags.get(row["id"], []))))
    return [found[run_id] for run_id in ids if run_id in found]


def _conditions(wanted: RunFilter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.archived is not None:
        conditions.append(Run.archived if wanted.archived else Run.archived == false())
    if wanted.project is not None:
        number = select(Project.id).where(Project.name == wanted.project).scalar_subquery()
        conditions.append(Run.project_id == number)
    if wanted.status is not None:
        conditions.append(Run.status.in_([wanted.status] if isinstance(wanted.status, str) else wanted.status))
    if wanted.task is not None:
        conditions.append(Run.task == wanted.task)
    if wanted.tag is not None:
        conditions.append(Run.id.in_(select(Tag.run_id).where(Tag.tag == wanted.tag)))
    if wanted.sweep is not None:
        members = select(SweepMember.run_id).join(Sweep, Sweep.id == SweepMember.sweep_id)
        conditions.append(Run.id.in_(members.where(Sweep.name == wanted.sweep)))
    if wanted.text:
        places = (Run.name, Run.pattern, Run.notes)
        conditions.append(or_(*(place.icontains(wanted.text, autoescape=True) for place in places)))
    return conditions


def _ordered(query: Any, order_by: str) -> Select[Any]:
    key = order_by.removeprefix("-")
    downwards = key != order_by
    column: Any
    if key.startswith("metric:"):
        name, _, which = key.removeprefix("metric:").rpartition(":")
        if not name or which not in _SUMMARIES:
            name, which = key.removeprefix("metric:"), "last"
        number = select(Metric.id).where(Metric.name == name).scalar_subquery()
        query = query.outerjoin(Summary, and_(Summary.run_id == Run.id, Summary.metric_id == number))
        column = _SUMMARIES[which]
    elif key in _ORDERS:
        column = _ORDERS[key]
        if key == "project":
            query = query.join(Project, Project.id == Run.project_id)
    else:
        remedy = did_you_mean(key, [*_ORDERS, "metric:NAME"])
        raise RequestError(f"runs cannot be ordered by {key!r}", place="order_by", remedy=remedy)
    parts: tuple[UnaryExpression[Any], ...] = (column.asc().nulls_last(), Run.id.asc())
    if downwards:
        parts = (column.desc().nulls_last(), Run.id.desc())
    return query.order_by(*parts)


def portions(ids: Collection[int], size: int = 5000) -> Iterator[Sequence[int]]:
    """Some ids at a time: a statement may hold 32,766 parameters on SQLite."""
    every = list(ids)
    for start in range(0, len(every), size):
        yield every[start : start + size]

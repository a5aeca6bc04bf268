"""What a study found: tables and curves over seeds, each at what validation chose, beside published values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chimeralab import metrics
from chimeralab.statistics import Estimate, Pairwise, best, compare_pairs, estimate
from chimeralab.studies.spec import Figure, Published, StudySpec, Table
from chimeralab.sweeps import SweepSpec
from chimeralab.sweeps.axes import same
from chimeralab.sweeps.spec import Point

MEAN = "mean"
"""The column over all columns."""

APART = 0.1
"""A published value further than this from ours, and outside our interval, is told of as a disagreement."""


@dataclass(frozen=True)
class Measured:
    """One member of the sweep as far as it came: the last value of each of its metrics."""

    point: Point
    seed: int
    status: str
    metrics: Mapping[str, float]
    run_id: int | None = None


@dataclass(frozen=True)
class Cell:
    """One place of a table. `chosen` are the values of the axes over which validation chose; None: nothing measured."""

    test: Estimate | None
    by_seed: Mapping[Any, float]
    chosen: Mapping[str, Any]
    published: tuple[Published, ...] = ()

    def apart(self) -> list[Published]:
        """Published values that disagree with ours; see `APART`."""
        return [value for value in self.published if self.test is not None and _distance(self.test, value) > APART]


@dataclass(frozen=True)
class TableOf:
    """A table's cells by (row, column); without columns there is one, called as the metric is."""

    table: Table
    metric: str  # as it is at this scale
    rows: list[Any]
    columns: list[Any]
    cells: Mapping[tuple[Any, Any], Cell]
    differences: list[Pairwise[Any]]  # of each row from the first, over columns and seeds


@dataclass(frozen=True)
class Curve:
    label: Any
    x: list[Any]
    y: list[Estimate]


@dataclass(frozen=True)
class FigureOf:
    figure: Figure
    metric: str  # as it is at this scale
    curves: list[Curve]


@dataclass(frozen=True)
class Results:
    """A study at a scale. `ended` says how many members ended how; those still to come are under their status."""

    study: StudySpec
    scale: str
    sweep: SweepSpec
    ended: Mapping[str, int]
    seconds: float | None
    tables: list[TableOf]
    figures: list[FigureOf]

    @property
    def members(self) -> int:
        return sum(self.ended.values())


def results(
    study: StudySpec, scale: str, sweep: SweepSpec, measured: Sequence[Measured], seconds: float | None = None
) -> Results:
    """Tables and figures of what was measured so far. `sweep` is resolved: it says what validation ranks by."""
    ended: dict[str, int] = {}
    for member in measured:
        ended[member.status] = ended.get(member.status, 0) + 1
    other = study.scale(scale).metrics
    found = _Found(study, sweep, measured)
    return Results(
        study,
        scale,
        sweep,
        ended,
        seconds,
        [found.table(table, other.get(table.metric, table.metric)) for table in study.tables],
        [found.figure(figure, other.get(figure.metric, figure.metric)) for figure in study.figures],
    )


class _Found:
    """The members, grouped by where they stand on the axes that are shown; of each group those that completed."""

    def __init__(self, study: StudySpec, sweep: SweepSpec, measured: Sequence[Measured]) -> None:
        self.study, self.sweep = study, sweep
        self.axes = {axis.name: [label for label, _ in axis.choices] for axis in sweep.read_axes()}
        self.groups: list[tuple[Point, list[Measured]]] = []
        for member in measured:
            shown = {axis: value for axis, value in member.point.items() if axis not in study.choose}
            members = next((members for place, members in self.groups if _equal(place, shown)), None)
            if members is None:
                self.groups.append((shown, members := []))
            if member.status == "completed":
                members.append(member)
        self.best = [(place, *self._chosen(members)) for place, members in self.groups]

    def _chosen(self, members: Sequence[Measured]) -> tuple[Point, list[Measured]]:
        """The point that validation chose, and its members."""
        points: list[Point] = []
        validation: dict[int, dict[int, float]] = {}
        for member in members:
            index = next((i for i, point in enumerate(points) if _equal(point, member.point)), len(points))
            if index == len(points):
                points.append(member.point)
            value = member.metrics.get(self.sweep.metric)
            if value is not None:
                validation.setdefault(index, {})[member.seed] = value
        chosen = best(validation, "min" if self.sweep.direction == "min" else "max")
        if chosen is None:
            return {}, []
        point = points[chosen.key]
        return point, [member for member in members if _equal(member.point, point)]

    def at(self, place: Mapping[str, Any], metric: str) -> Cell:
        """The metric at a place; where several groups stand there, each seed's mean over them, once all have it."""
        here = [(point, members) for shown, point, members in self.best if _contains(shown, place)]
        by_group = [
            {member.seed: member.metrics[metric] for member in members if metric in member.metrics}
            for _, members in here
        ]
        common = [seed for seed in (by_group[0] if by_group else ()) if all(seed in seeds for seeds in by_group)]
        by_seed = {seed: math.fsum(seeds[seed] for seeds in by_group) / len(by_group) for seed in common}
        chosen = {axis: here[0][0].get(axis) for axis in self.study.choose if len(here) == 1 and axis in here[0][0]}
        return Cell(estimate(by_seed.values()) if by_seed else None, by_seed, chosen)

    def table(self, table: Table, metric: str) -> TableOf:
        rows = self.axes.get(table.rows, [])
        columns: list[Any] = self.axes.get(table.columns, []) if table.columns else [metric]
        first = table is self.study.tables[0]
        published = [p for p in self.study.published if (p.metric or (table.metric if first else "")) == table.metric]
        whole = columns and len(columns) == len(self.study.sweep["axes"].get(table.columns, ()))
        if whole and any(table.columns not in value.at for value in published):
            columns = [*columns, MEAN]
        cells = {}
        for row in rows:
            for column in columns:
                place = {table.rows: row}
                if table.columns and column is not MEAN:
                    place[table.columns] = column
                cell = self.at(place, metric)
                here = tuple(value for value in published if _equal(value.at, place))
                cells[row, column] = Cell(cell.test, cell.by_seed, cell.chosen, here)
        scores: dict[Any, dict[Hashable, float]] = {
            row: {
                (column, seed): value
                for column in columns
                if column is not MEAN
                for seed, value in cells[row, column].by_seed.items()
            }
            for row in rows
        }
        scores = {row: values for row, values in scores.items() if values}
        against = next(iter(scores), None)
        differences = compare_pairs(scores, against=against) if len(scores) > 1 else []
        return TableOf(table, metric, rows, columns, cells, differences)

    def figure(self, figure: Figure, metric: str) -> FigureOf:
        curves = [self._curve(figure, metric, label) for label in self.axes.get(figure.by, [])]
        return FigureOf(figure, metric, [curve for curve in curves if curve.x])

    def _curve(self, figure: Figure, metric: str, label: Any) -> Curve:
        place = {figure.by: label}
        if figure.x in self.axes:
            cells = [(x, self.at({**place, figure.x: x}, metric).test) for x in self.axes[figure.x]]
        else:
            cells = [(x, self.at(place, name).test) for x, name in self._along(figure.x, metric)]
        known = [(x, y) for x, y in cells if y is not None]
        return Curve(label, [x for x, _ in known], [y for _, y in known])

    def _along(self, axis: str, metric: str) -> list[tuple[Any, str]]:
        """(value, name) of the metric at every place that was measured on an axis of its own."""
        members = [member for _, _, members in self.best for member in members]
        return [
            (value, str(metrics.parse(metric).at({axis: value})))
            for one in metrics.series({number: member.metrics for number, member in enumerate(members)})
            if (one.metric, one.axes) == (metric, (axis,))
            for value in one.values[0]
        ]


def disagreements(found: Results) -> list[str]:
    """A sentence for each published value that is apart from ours."""
    return [
        f"{_place(row, column)}: {cell.test} here, {shown(value.value)} published ({value.source})."
        for table in found.tables
        for (row, column), cell in table.cells.items()
        for value in cell.apart()
    ]


def shown(value: float | tuple[float, float]) -> str:
    """A published value or range."""
    return " to ".join(f"{part:.4g}" for part in (value if isinstance(value, tuple) else (value,)))


def _place(row: Any, column: Any) -> str:
    return f"{row}, {column}"


def _distance(found: Estimate, published: Published) -> float:
    low, high = published.value if isinstance(published.value, tuple) else (published.value, published.value)
    ours = (found.mean if found.low is None else found.low, found.mean if found.high is None else found.high)
    return max(0.0, low - ours[1], ours[0] - high)


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and _contains(a, b)


def _contains(place: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    return all(axis in place and same(place[axis], value) for axis, value in part.items())


def labels(values: Iterable[Any]) -> list[str]:
    return [f"{value:g}" if isinstance(value, float) else str(value) for value in values]

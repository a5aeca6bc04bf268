"""Names of metrics, `split/metric@axis=value,axis=value`: written and read here alone.

    test/accuracy                       over the test split
    test/accuracy@length=512            over the evaluation set of that length
    test/accuracy@depth=0.5,length=1024 over the one at that place of a grid
    test/loss@position=128              over targets at positions up to 128, from the position before in the list

Where a run measures one metric at several values of an axis, that is a curve; at several of two axes, a grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from chimeralab.errors import SpecError

Value = int | float | str

POSITION = "position"
"""The axis of position in context: a value is the last position of a bucket, counted from 1."""

FORM = "split/metric@axis=value,axis=value, such as test/accuracy@length=512"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VALUE = re.compile(r"[A-Za-z0-9_.+-]+")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class MetricName:
    """A name taken apart. `axes` are in alphabetical order, so that one thing has one name.

    >>> name = parse("test/accuracy@length=1024,depth=0.5")
    >>> name.metric, dict(name.axes)
    ('accuracy', {'depth': 0.5, 'length': 1024})
    >>> str(name)
    'test/accuracy@depth=0.5,length=1024'
    """

    split: str
    metric: str
    axes: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        told = ",".join(f"{axis}={value}" for axis, value in self.axes)
        return f"{self.split}/{self.metric}@{told}" if told else f"{self.split}/{self.metric}"

    def at(self, axes: Mapping[str, Value]) -> MetricName:
        """The same metric where these axes have these values too."""
        return MetricName(self.split, self.metric, tuple(sorted({**dict(self.axes), **axes}.items())))


def parse(name: str) -> MetricName:
    """Take the name of a metric apart.

    Raises:
        SpecError: it is not of that form.
    """
    before, mark, after = name.partition("@")
    split, slash, metric = before.partition("/")
    if not (split and slash and metric) or (mark and not after):
        raise SpecError(f"{name!r} names no metric", place="metric", remedy=f"The form is {FORM}")
    return MetricName(split, metric, tuple(parse_axes(after).items()))


def parse_axes(text: str) -> dict[str, Value]:
    """`length=1024,depth=0.5` as {"depth": 0.5, "length": 1024}; nothing gives no axes.

    Raises:
        SpecError: it is not of that form, or names an axis twice.
    """
    axes: dict[str, Value] = {}
    for part in text.split(",") if text else []:
        axis, mark, value = part.partition("=")
        if not (mark and _WORD.fullmatch(axis) and _VALUE.fullmatch(value)) or axis in axes:
            raise SpecError(f"{part!r} in {text!r} is not one axis=value", place="metric", remedy=f"The form is {FORM}")
        axes[axis] = int(value) if _INTEGER.fullmatch(value) else float(value) if _NUMBER.fullmatch(value) else value
    return dict(sorted(axes.items()))


@dataclass(frozen=True)
class Series:
    """A metric along one axis, or over the grid of two, as some runs measured it.

    `metric` is `split/metric`, with `@axis=value` for axes that have one value alone; `values` are those of each axis,
    rising; `points` holds, for each run, what was measured at some of their places.
    """

    metric: str
    axes: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    points: Mapping[int, Mapping[tuple[Value, ...], float]]


def series(runs: Mapping[int, Mapping[str, float]]) -> list[Series]:
    """What can be drawn over one axis or two, from the values that runs measured, by metric name.

    >>> found = series({7: {"test/loss@length=8": 2.0, "test/loss@length=4": 1.0, "test/loss": 3.0}})
    >>> found[0].metric, found[0].axes, found[0].values, found[0].points
    ('test/loss', ('length',), ((4, 8),), {7: {(8,): 2.0, (4,): 1.0}})
    """
    groups: dict[tuple[str, str, tuple[str, ...]], dict[int, dict[tuple[Value, ...], float]]] = {}
    for run, measured in runs.items():
        for text, value in measured.items():
            name = _read(text)
            if name is not None and name.axes:
                key = name.split, name.metric, tuple(axis for axis, _ in name.axes)
                groups.setdefault(key, {}).setdefault(run, {})[tuple(at for _, at in name.axes)] = value
    found = []
    for (split, metric, axes), points in sorted(groups.items()):
        places = {place for of_run in points.values() for place in of_run}
        values = [tuple(sorted({place[n] for place in places}, key=_order)) for n in range(len(axes))]
        moving = [n for n in range(len(axes)) if len(values[n]) > 1]
        if not 1 <= len(moving) <= 2:
            continue
        still = tuple((axes[n], values[n][0]) for n in range(len(axes)) if n not in moving)
        found.append(
            Series(
                metric=str(MetricName(split, metric, still)),
                axes=tuple(axes[n] for n in moving),
                values=tuple(values[n] for n in moving),
                points={
                    run: {tuple(place[n] for n in moving): value for place, value in of_run.items()}
                    for run, of_run in points.items()
                },
            )
        )
    return found


def _read(text: str) -> MetricName | None:
    """A name taken apart; None of one that a task made in another way, such as recall@10."""
    try:
        return parse(text)
    except SpecError:
        return None


def _order(value: Value) -> tuple[bool, Value]:
    return isinstance(value, str), value

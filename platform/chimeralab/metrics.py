"""Names of metrics, `split/metric@axis=value,axis=value`: written and read here alone.

    test/accuracy                       over the test split
    test/accuracy@length=512            over the evaluation set of that length
    test/accuracy@depth=0.5,length=1024 over the one at that place of a grid
    test/loss@position=128              over targets at positions up to 128, from the position before in the list

Where a run measures one metric at several values of an axis, that is a curve; at several of two axes, a grid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def grouped(names: Iterable[str]) -> dict[tuple[str, ...], dict[str, list[MetricName]]]:
    """The names that have axes, by their axes and then by `split/metric`, the values in rising order.

    Names of another form are passed over: a run may measure what no axis has.
    """
    found: dict[tuple[str, ...], dict[str, list[MetricName]]] = {}
    for text in names:
        if "@" not in text:
            continue
        name = parse(text)
        curves = found.setdefault(tuple(axis for axis, _ in name.axes), {})
        curves.setdefault(f"{name.split}/{name.metric}", []).append(name)
    for curves in found.values():
        for curve in curves.values():
            curve.sort(key=lambda name: [(isinstance(value, str), value) for _, value in name.axes])
    return found

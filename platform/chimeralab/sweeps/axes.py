"""Axes of a sweep: a field and its values, an interval, or named points that set several fields together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chimeralab.errors import SpecError

DIGITS = 6  # significant ones of a value between the ends of an interval: short to read, and equal when repeated


@dataclass(frozen=True)
class Interval:
    """Real values from `low` to `high`, evenly spread or evenly in the logarithm."""

    low: float
    high: float
    log: bool

    def at(self, share: float) -> float:
        """The value at a share (0 … 1) of the way."""
        if self.log:
            return self.rounded(self.low * (self.high / self.low) ** share)
        return self.rounded(self.low + (self.high - self.low) * share)

    def rounded(self, value: float) -> float:
        """The value with `DIGITS` significant digits, within the interval."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Axis:
    """What may vary. `choices` maps what stands in tables (a value, a point's name) to {dotted field: value}.

    An interval without a count has no choices: a search draws from it.
    """

    name: str
    choices: tuple[tuple[Any, dict[str, Any]], ...]
    interval: Interval | None = None
    named: bool = False  # its choices are points with names, which are text

    @property
    def first(self) -> Any:
        """Its first value, or the name of its first point."""
        return self.choices[0][0] if self.interval is None else self.interval.low

    @property
    def paths(self) -> set[str]:
        """The fields that it sets."""
        return {path for _, fields in self.choices for path in fields} or {self.name}

    def fields(self, label: Any) -> dict[str, Any]:
        """The fields of the choice that is called `label`."""
        for known, fields in self.choices:
            if same(known, label):
                return fields
        if self.interval is None:
            raise SpecError(f"{label!r} is not one of its values", place=f"axes: {self.name}")
        return {self.name: label}


def read_axis(name: str, written: Any) -> Axis:
    """An axis from a file: a list, {log: [low, high, count]}, {uniform: [low, high, count]} or {label: {field: value}}.

    Raises:
        SpecError: it is none of these; `place` names the axis.
    """
    place = f"axes: {name}"
    if isinstance(written, Mapping) and len(written) == 1 and next(iter(written)) in ("log", "uniform"):
        (kind, ends), *_ = written.items()
        return _interval(name, kind == "log", ends, place)
    if isinstance(written, Mapping):
        return _points(name, written, place)
    if isinstance(written, Sequence) and not isinstance(written, str):
        labels = list(written)
        _require_distinct(labels, place)
        return Axis(name, tuple((label, {name: label}) for label in labels))
    raise SpecError(
        f"{written!r} is no axis",
        place=place,
        remedy="Write a list of values, {log: [low, high, count]}, {uniform: [low, high, count]}, or named points"
        " {label: {field: value}}",
    )


def check_axes(axes: Sequence[Axis]) -> None:
    """Raises SpecError where two axes set one field, or the seed, which has a place of its own."""
    owners: dict[str, str] = {}
    for axis in axes:
        for path in sorted(axis.paths):
            if path == "seed":
                raise SpecError(
                    "seeds are an axis of their own", place=f"axes: {axis.name}", remedy="Write seeds: [0, 1]"
                )
            for other, owner in owners.items():
                if owner != axis.name and (f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")):
                    raise SpecError(f"it sets {path}, and so does {owner}", place=f"axes: {axis.name}")
            owners[path] = axis.name


def _interval(name: str, log: bool, ends: Any, place: str) -> Axis:
    numbers = list(ends) if isinstance(ends, Sequence) and not isinstance(ends, str) else []
    real = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if len(numbers) not in (2, 3) or not real or not numbers[0] < numbers[1] or (log and numbers[0] <= 0):
        rule = "0 < low < high" if log else "low < high"
        raise SpecError(f"expected [low, high] or [low, high, count] with {rule}, not {ends!r}", place=place)
    interval = Interval(float(numbers[0]), float(numbers[1]), log)
    if len(numbers) == 2:
        return Axis(name, (), interval)
    count = numbers[2]
    if not isinstance(count, int) or count < 2:
        raise SpecError(f"a count of {count!r} values", place=place, remedy="Take 2 or more, both ends included")
    values = [interval.at(i / (count - 1)) for i in range(count)]
    return Axis(name, tuple((value, {name: value}) for value in values), interval)


def _points(name: str, written: Mapping[Any, Any], place: str) -> Axis:
    for label, fields in written.items():
        if not isinstance(fields, Mapping) or not fields:
            raise SpecError(
                f"expected fields, not {fields!r}",
                place=f"{place} = {label}",
                remedy="A named point maps fields to values: {stack.pattern: mamba x2, train.lr: 0.001}",
            )
    if not written:
        raise SpecError("it has no points", place=place)
    flat = ((label, dict(flatten(fields))) for label, fields in written.items())
    return Axis(name, tuple((str(label), fields) for label, fields in flat), named=True)


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested fields as dotted ones, each value of its own; a value that is itself a mapping counts as nested."""
    for name, value in fields.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from true, and takes 1 for 1.0."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _require_distinct(labels: Sequence[Any], place: str) -> None:
    if not labels:
        raise SpecError("it has no values", place=place)
    for index, label in enumerate(labels):
        if any(same(label, other) for other in labels[:index]):
            raise SpecError(f"the value {label!r} stands there twice", place=place)

"""Small tables of what was measured along one axis or over two."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from chimeralab.cli.output import number, out, table
from chimeralab.metrics import Series, parse, series


def print_series(runs: Mapping[int, Mapping[str, float]]) -> None:
    """One table a metric: along one axis a column a run, over two one table a run."""
    for one in series(runs):
        by = f"{one.metric} by {' and '.join(one.axes)}"
        if len(one.axes) == 1:
            _print(by, _along(one, list(runs)))
        else:
            for run in one.points:
                _print(f"{by}, run {run}" if len(runs) > 1 else by, _over(one, run))


def _print(title: str, shown: Table) -> None:
    out.print(f"\n{title}", markup=False)
    out.print(shown)


def plain(measured: Mapping[str, float]) -> list[str]:
    """Names of what no table of `print_series` shows."""
    drawn = {
        str(parse(one.metric).at(dict(zip(one.axes, place, strict=True))))
        for one in series({0: measured})
        for place in one.points[0]
    }
    return [name for name in measured if name not in drawn]


def _along(one: Series, runs: list[int]) -> Table:
    rows = [(str(value), *(number(one.points.get(run, {}).get((value,))) for run in runs)) for value in one.values[0]]
    named = [f"run {run}" for run in runs] if len(runs) > 1 else [""]
    return table((one.axes[0], *named), rows)


def _over(one: Series, run: int) -> Table:
    down, across = one.values
    rows = [(str(at), *(number(one.points[run].get((at, to))) for to in across)) for at in down]
    return table((f"{one.axes[0]} \\ {one.axes[1]}", *map(str, across)), rows)

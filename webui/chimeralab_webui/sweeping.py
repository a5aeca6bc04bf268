"""A sweep's points as plain rows, and as a figure of the metric over an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chimeralab_webui.comparing import estimated
from chimeralab_webui.figures import RUN_COLORS, TICKS, Figure, line, text, ticks

if TYPE_CHECKING:
    from chimeralab.statistics import Estimate
    from chimeralab.sweep_records import SweepPoint, SweepTable


def rows(table: SweepTable) -> list[dict[str, Any]]:
    """One row a point: where it stands, mean and interval on validation and test, its runs."""
    return [
        {
            "id": number,
            "values": list(point.point.values()),
            "validation": estimated(point.estimate(table.metric)),
            "test": estimated(point.estimate(table.test_metric)),
            "statuses": point.statuses,
            "runs": [[seed, run] for seed, run in point.runs.items()],
            "best": table.best is not None and table.best.key == number,
        }
        for number, point in enumerate(table.points)
    ]


def axes(table: SweepTable) -> list[str]:
    return list(table.points[0].point) if table.points else []


def over_axis(table: SweepTable, axis: str, metric: str) -> Figure | None:
    """The metric's mean over an axis, with intervals over seeds; a trace for each place on the other axes.

    Numbers are joined by a line; between names there is nothing to join.
    """
    names = axes(table)
    if not names:
        return None
    axis = axis if axis in names else names[0]
    lines: dict[str, list[SweepPoint]] = {}
    for point in table.points:
        lines.setdefault(_elsewhere(point.point, axis), []).append(point)
    data = []
    for position, (label, points) in enumerate(lines.items()):
        found = [(point.point[axis], point.estimate(metric)) for point in points]
        drawn = [(at, value) for at, value in found if value is not None]
        if not drawn:
            continue
        numbers = all(isinstance(at, int | float) for at, _ in drawn)
        if numbers:
            drawn.sort(key=lambda pair: pair[0])
        data.append(
            line(
                [at if isinstance(at, int | float) else text(at) for at, _ in drawn],
                [value.mean for _, value in drawn],
                label or metric,
                RUN_COLORS[position % len(RUN_COLORS)],
                mode="lines+markers" if numbers else "markers",
                error_y=_bars([value for _, value in drawn]),
            )
        )
    if not data:
        return None
    written = table.spec.axes.get(axis)
    log = isinstance(written, Mapping) and "log" in written
    places = sorted({at for trace in data for at in trace["x"]}) if log else []
    marks = ticks(places) if len(places) <= TICKS else {"exponentformat": "none"}
    return {
        "data": data,
        "layout": {
            "xaxis": {"type": "log" if log else "-", "title": {"text": text(axis)}} | (marks if log else {}),
            "yaxis": {"title": {"text": text(metric)}},
            "showlegend": len(data) > 1,
            "uirevision": f"{table.id} {axis} {metric}",
        },
    }


def _elsewhere(point: Mapping[str, Any], axis: str) -> str:
    return ", ".join(f"{name}={value}" for name, value in point.items() if name != axis)


def _bars(estimates: list[Estimate]) -> dict[str, Any]:
    above = [0.0 if e.high is None else e.high - e.mean for e in estimates]
    below = [0.0 if e.low is None else e.mean - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}

"""What was measured along an axis (lengths, pairs, positions), as curves; and over two, as a heat map for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chimeralab.metrics import Series, Value, parse, series
from chimeralab_webui.curves import finite, title
from chimeralab_webui.figures import RUN_COLORS, TICKS, Figure, choices, line, text, ticks

MAPS = 6  # heat maps side by side; of more runs the first are drawn
SHARES = ("accuracy", "scaled_accuracy", "exact_match")  # from 0 to 1

CONTROLS: list[dict[str, Any]] = [{"name": "measured", "label": "Show", "value": "", "options": []}]


def reply(runs: Mapping[int, Mapping[str, float]], names: Sequence[str], value: Any) -> dict[str, Any]:
    """The figure that a plot's value asks for, or the first, of the metrics that runs measured, by name."""
    found = {f"{one.metric} {' '.join(one.axes)}": one for one in series(runs)}
    if not found:
        return {"figure": {"data": []}}
    asked = choices(value).get("measured")
    chosen = asked if asked in found else min(found, key=_first)
    one = found[chosen]
    labels = dict(zip(runs, names, strict=True))
    return {
        "figure": (_curves if len(one.axes) == 1 else _maps)(one, labels),
        "options": {"measured": [{"value": key, "label": _label(found[key])} for key in sorted(found, key=_first)]},
        "choices": {"measured": chosen},
    }


def _first(key: str) -> tuple[bool, bool, str]:
    """The test before other splits, shares before losses."""
    return not key.startswith("test/"), not any(f"/{share}" in key for share in SHARES), key


def _label(one: Series) -> str:
    name = parse(one.metric)
    still = "".join(f", {axis} {value}" for axis, value in name.axes)
    return f"{title(name.metric)} by {' and '.join(one.axes)} ({name.split}{still})"


def _curves(one: Series, labels: Mapping[int, str]) -> Figure:
    data = []
    for position, (run, name) in enumerate(labels.items()):
        points = sorted(one.points.get(run, {}).items(), key=lambda point: one.values[0].index(point[0][0]))
        if points:
            color = RUN_COLORS[position % len(RUN_COLORS)]
            x, y = [_tick(place[0]) for place, _ in points], finite([value for _, value in points])
            look = {"mode": "lines+markers", "hovertemplate": f"%{{y:.4g}}<extra>{text(name)}</extra>"}
            data.append(line(x, y, name, color, **look))
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": text(title(one.axes[0]))}} | _scale(one.values[0]),
            "yaxis": {"title": {"text": text(title(parse(one.metric).metric))}} | _range(one),
            "showlegend": len(labels) > 1,
            "uirevision": _label(one),
        },
    }


def _maps(one: Series, labels: Mapping[int, str]) -> Figure:
    """The first axis upwards, the second across; one scale of colours for all runs."""
    drawn = [run for run in labels if run in one.points][:MAPS]
    up, across = one.values
    share = 1 / max(len(drawn), 1)
    where = f"{text(one.axes[0])} %{{y}}, {text(one.axes[1])} %{{x}}"
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "coloraxis": {"colorscale": "Viridis", "colorbar": {"thickness": 12}} | _bounds(one),
        "hovermode": "closest",
        "showlegend": False,
        "uirevision": _label(one),
        "annotations": [],
        "margin": {"t": 28, "r": 12, "b": 44, "l": 56},
    }
    for number, run in enumerate(drawn):
        suffix = "" if number == 0 else str(number + 1)
        points = one.points[run]
        data.append(
            {
                "type": "heatmap",
                "x": [text(value) for value in across],
                "y": [text(value) for value in up],
                "z": [finite([points.get((down, to), float("nan")) for to in across]) for down in up],
                "coloraxis": "coloraxis",
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "texttemplate": "%{z:.2f}" if len(across) <= 12 else None,
                "hovertemplate": f"{where}: %{{z:.4g}}<extra>{text(labels[run])}</extra>",
                "name": text(labels[run]),
            }
        )
        domain = [number * share, (number + 1) * share - (0.02 if number + 1 < len(drawn) else 0)]
        layout[f"xaxis{suffix}"] = {"type": "category", "domain": domain, "title": {"text": text(title(one.axes[1]))}}
        layout[f"yaxis{suffix}"] = {"type": "category", "showticklabels": number == 0, "anchor": f"x{suffix}"}
        if len(labels) > 1:
            at = {
                "x": sum(domain) / 2,
                "xref": "paper",
                "xanchor": "center",
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
            }
            layout["annotations"].append({"text": text(labels[run]), "share": share, "showarrow": False, **at})
    layout["yaxis"]["title"] = {"text": text(title(one.axes[0]))}
    return {"data": data, "layout": layout}


def _tick(value: Value) -> Value:
    return text(value) if isinstance(value, str) else value


def _scale(values: Sequence[Value]) -> dict[str, Any]:
    """A logarithmic axis for lengths that grow by factors, places for words."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return {"type": "category", "categoryarray": [text(value) for value in values]}
    log = numbers[0] > 0 and numbers[-1] / numbers[0] >= 4
    shown = numbers if len(numbers) <= TICKS or not log else [n for n in numbers if math.log2(n).is_integer()]
    return {"type": "log" if log else "linear"} | (ticks(shown) if 1 < len(shown) <= TICKS else {})


def _range(one: Series) -> dict[str, Any]:
    return {"range": [-0.02, 1.02]} if parse(one.metric).metric in SHARES else {}


def _bounds(one: Series) -> dict[str, Any]:
    return {"cmin": 0, "cmax": 1} if parse(one.metric).metric in SHARES else {}

"""Curves of runs: which quantities there are, smoothing, and the figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from chimeralab_webui.figures import RUN_COLORS, X_TITLES, Figure, line

if TYPE_CHECKING:
    from chimeralab import Lab

POINTS = 400  # a curve on the screen
POINTS_TO_SMOOTH = 2000
FIRST = ("loss", "bits_per_byte", "accuracy")
TITLES = {
    "loss": "Loss (nats)",
    "bits_per_byte": "Bits per byte",
    "accuracy": "Accuracy",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "tokens_per_second": "Tokens per second",
    "peak_memory_bytes": "Peak memory (bytes)",
    "flops_utilisation": "FLOPs utilisation",
}


class Choices(BaseModel):
    """The controls above a curve. A quantity is what follows a metric's slash: `loss` is drawn for every split."""

    quantity: str = Field("loss", max_length=200)
    x: Literal["step", "tokens", "seconds"] = "step"
    smooth: float = Field(0.0, ge=0, lt=1)
    scale: Literal["linear", "log"] = "linear"


CONTROLS: list[dict[str, Any]] = [
    {"name": "quantity", "label": "Show", "value": "loss", "options": [{"value": "loss", "label": TITLES["loss"]}]},
    {
        "name": "x",
        "label": "over",
        "value": "step",
        "options": [
            {"value": "step", "label": "steps"},
            {"value": "tokens", "label": "tokens"},
            {"value": "seconds", "label": "time"},
        ],
    },
    {
        "name": "smooth",
        "label": "Smoothing",
        "value": "0",
        "options": [
            {"value": "0", "label": "none"},
            {"value": "0.6", "label": "some"},
            {"value": "0.9", "label": "more"},
            {"value": "0.97", "label": "most"},
        ],
    },
    {"name": "scale", "label": "Scale", "value": "linear", "options": ["linear", "log"]},
]


def quantities(metrics: Sequence[str]) -> list[dict[str, str]]:
    """The choices for a set of metric names, the usual ones first."""
    names = {metric.rpartition("/")[2] for metric in metrics}
    order = [name for name in FIRST if name in names] + sorted(names - set(FIRST))
    return [{"value": name, "label": title(name)} for name in order]


def title(quantity: str) -> str:
    return TITLES.get(quantity, quantity.replace("_", " ").capitalize())


def figure(lab: Lab, run_ids: Sequence[int], names: Sequence[str], choices: Choices) -> Figure:
    """One colour a run, one dash a split. Smoothed curves are drawn over their faint measurements."""
    data: list[dict[str, Any]] = []
    several = len(run_ids) > 1
    for position, (run_id, name) in enumerate(zip(run_ids, names, strict=True)):
        metrics = [m for m in lab.metrics(run_id) if m.rpartition("/")[2] == choices.quantity]
        for split, metric in enumerate(metrics):
            color = RUN_COLORS[(position if several else position + split) % len(RUN_COLORS)]
            label = f"{name} · {metric.partition('/')[0]}" if several else metric.partition("/")[0]
            data += _traces(lab, run_id, metric, choices, label, color, dashed=several and split < len(metrics) - 1)
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": X_TITLES[choices.x]}},
            "yaxis": {"title": {"text": title(choices.quantity)}, "type": choices.scale},
            # A zoom belongs to the axes that are shown.
            "uirevision": f"{choices.quantity} {choices.x} {choices.scale}",
        },
    }


def _traces(
    lab: Lab, run_id: int, metric: str, choices: Choices, label: str, color: str, *, dashed: bool
) -> list[dict[str, Any]]:
    smooth = choices.smooth > 0
    curve = lab.curve(run_id, metric, x=choices.x, max_points=POINTS_TO_SMOOTH if smooth else POINTS)
    style = {"dash": "dot", "width": 1.5} if dashed else {}
    few = {"mode": "lines+markers", "marker": {"size": 5}} if len(curve.x) <= 40 else {}
    main = line(curve.x, finite(curve.y), label, color, line=style, legendgroup=label, **few)
    if not smooth or len(curve.x) < 3:
        return [main]
    faint = main | {"opacity": 0.25, "showlegend": False, "hoverinfo": "skip", "mode": "lines"}
    strong = main | {"y": finite(smoothed(curve.y, choices.smooth)), "mode": "lines"}
    return [faint, strong]


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average without its start-up bias; what is not finite is passed over."""
    average, total, out = 0.0, 0.0, []
    for value in values:
        if not math.isfinite(value):
            out.append(value)
            continue
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        out.append(average / total)
    return out


def finite(values: Sequence[float]) -> list[float | None]:
    """A gap where a value cannot be drawn."""
    return [value if math.isfinite(value) else None for value in values]

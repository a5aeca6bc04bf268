"""Curves of runs: which quantities there are, smoothing, and the figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from chimeralab_webui.figures import RUN_COLORS, X_TITLES, Figure, choices, line, text

if TYPE_CHECKING:
    from chimeralab import Lab

POINTS = 400  # a curve on the screen
POINTS_TO_SMOOTH = 2000
FEW = 40  # points that are marked one by one
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

    @classmethod
    def read(cls, value: Any) -> Choices:
        """The choices of a plot's value; the default for each that an address gives and that there is not."""
        given = choices(value)
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors()}
            return cls.model_validate({name: choice for name, choice in given.items() if name not in wrong})


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
    """The choices for a set of metric names, the usual ones first; a test is measured once and is no curve."""
    names = {metric.rpartition("/")[2] for metric in metrics if not metric.startswith("test/")}
    order = [name for name in FIRST if name in names] + sorted(names - set(FIRST))
    return [{"value": name, "label": title(name)} for name in order]


def title(quantity: str) -> str:
    return TITLES.get(quantity, quantity.replace("_", " ").capitalize())


def figure(lab: Lab, run_ids: Sequence[int], names: Sequence[str], choices: Choices) -> Figure:
    """Of one run: a colour for each split. Of several: a colour for each run, training dotted."""
    data: list[dict[str, Any]] = []
    several = len(run_ids) > 1
    for position, (run_id, name) in enumerate(zip(run_ids, names, strict=True)):
        named = [m for m in lab.metrics(run_id) if m.rpartition("/")[2] == choices.quantity]
        metrics = [m for m in named if not m.startswith("test/")]
        for index, metric in enumerate(metrics):
            split, last = metric.partition("/")[0], index == len(metrics) - 1
            curve = lab.curve(run_id, metric, x=choices.x, max_points=POINTS_TO_SMOOTH if choices.smooth else POINTS)
            look: dict[str, Any] = {"hovertemplate": f"%{{y}}<extra>{text(f'{name}, {split}')}</extra>"}
            if several:
                look |= {"name": name, "legendgroup": str(run_id), "showlegend": last}
                look |= {"line": {} if last else {"dash": "dot", "width": 1.5}}
            color = RUN_COLORS[(position if several else index) % len(RUN_COLORS)]
            data += _traces(curve, choices.smooth, {"name": split} | look, color)
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": X_TITLES[choices.x]}},
            "yaxis": {"title": {"text": text(title(choices.quantity))}, "type": choices.scale},
            # A zoom belongs to the axes that are shown.
            "uirevision": f"{choices.quantity} {choices.x} {choices.scale}",
        },
    }


def _traces(curve: Any, smooth: float, look: dict[str, Any], color: str) -> list[dict[str, Any]]:
    """The curve; smoothed, it is drawn over its faint measurements."""
    few = {"mode": "lines+markers", "marker": {"size": 5}} if len(curve.x) <= FEW else {}
    plain = line(curve.x, finite(curve.y), color=color, **{**few, **look})
    if not smooth or len(curve.x) < 3:
        return [plain]
    faint = plain | {"opacity": 0.25, "showlegend": False, "hoverinfo": "skip", "mode": "lines"}
    return [faint, plain | {"y": finite(smoothed(curve.y, smooth)), "mode": "lines"}]


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

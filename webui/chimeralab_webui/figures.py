"""Figures as plain Plotly JSON (`{"data": [...], "layout": {...}}`). Colours of axes and text are the browser's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

Figure = dict[str, Any]

RUN_COLORS = (
    "#5b5bd6", "#12a594", "#e5484d", "#f5a524", "#0090ff", "#d6409f", "#46a758", "#8e4ec6", "#f76b15", "#7b8794",
)  # fmt: skip
X_TITLES = {"step": "Step", "tokens": "Tokens", "seconds": "Training time (s)"}
TICKS = 12  # on an axis, where the values themselves are its ticks


def choices(value: Any) -> dict[str, Any]:
    """What is chosen above a plot, by the names of its controls, from its value."""
    return (value or {}).get("choices") or {}


def text(words: Any) -> str:
    """Words as a figure shows them: Plotly reads a few tags, entities and `%{...}` in what it draws."""
    return escape(str(words), quote=False).replace("%{", "&#37;{")


def line(x: Sequence[Any], y: Sequence[Any], name: str, color: str, **more: Any) -> dict[str, Any]:
    """A curve; its name is taken as text."""
    style = {"color": color, "width": 2} | more.pop("line", {})
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": text(name), "line": style} | more


def ticks(values: Iterable[float]) -> dict[str, Any]:
    """These values as an axis's ticks: between powers of ten a logarithmic one has digits alone."""
    shown = sorted(set(values))
    return {"tickvals": shown, "ticktext": [f"{n:.3g}" if isinstance(n, float) else str(n) for n in shown]}


def state_curve(report: Any, pinned: Any = None) -> Figure:
    """State bytes over context length of a cost report, and of the pinned one."""
    shown = [line(report.contexts, report.state_bytes, "This stack", RUN_COLORS[0], mode="lines+markers")]
    if pinned is not None:
        dashed = {"dash": "dot"}
        shown.append(line(pinned.contexts, pinned.state_bytes, "Pinned", "#8b8d98", mode="lines+markers", line=dashed))
    for trace in shown:
        trace["y"] = [value or None for value in trace["y"]]  # a log axis has no zero
    lengths = {"tickvals": report.contexts}
    lengths["ticktext"] = [f"{n // 1024}K" if n >= 1024 else str(n) for n in report.contexts]
    return {
        "data": shown,
        "layout": {
            "xaxis": {"type": "log", "title": {"text": "Context length"}} | lengths,
            "yaxis": {"type": "log", "title": {"text": "Bytes"}, "tickformat": ".0s"},
            "showlegend": pinned is not None,
        },
    }


PROFILE_CHOICES = {
    "decode_ms": ("decode", "Decode: ms per token"),
    "prefill_ms": ("prefill", "Prefill: ms"),
    "state_bytes": ("decode", "State: bytes per sequence"),
}


def profile_control() -> dict[str, Any]:
    options = [{"value": key, "label": label} for key, (_, label) in PROFILE_CHOICES.items()]
    return {"name": "measure", "label": "Show", "value": "decode_ms", "options": options}


def profile_curves(profiles: Sequence[Any], names: Mapping[int, str], measure: str) -> Figure:
    """What was measured at each context length, one curve for each run of `names`."""
    kind, label = PROFILE_CHOICES.get(measure, PROFILE_CHOICES["decode_ms"])
    data, contexts = [], set()
    for position, (run_id, name) in enumerate(names.items()):
        points = sorted((p.context, p.values[measure]) for p in profiles if p.run_id == run_id and p.name == kind)
        contexts |= {context for context, _ in points}
        if points:
            color = RUN_COLORS[position % len(RUN_COLORS)]
            x, y = zip(*points, strict=True)
            data.append(line(x, y, name, color, mode="lines+markers"))
    axis = {"type": "log", "title": {"text": "Context length"}} | ticks(contexts)
    return {
        "data": data,
        "layout": {
            "xaxis": axis,
            "yaxis": {"title": {"text": label}, "rangemode": "tozero"},
            "showlegend": len(names) > 1,
            "uirevision": measure,
        },
    }

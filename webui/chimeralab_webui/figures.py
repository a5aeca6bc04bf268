"""Figures as plain Plotly JSON (`{"data": [...], "layout": {...}}`). Colours of axes and text are the browser's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Figure = dict[str, Any]

RUN_COLORS = (
    "#5b5bd6", "#12a594", "#e5484d", "#f5a524", "#0090ff", "#d6409f", "#46a758", "#8e4ec6", "#f76b15", "#7b8794",
)  # fmt: skip
X_TITLES = {"step": "Step", "tokens": "Tokens", "seconds": "Training time (s)"}
LOWER_IS_BETTER = {"loss", "bits_per_byte", "peak_memory_bytes", "decode_ms", "prefill_ms", "state_bytes", "params"}


def line(x: Sequence, y: Sequence, name: str, color: str, **more: Any) -> dict[str, Any]:
    style = {"color": color, "width": 2} | more.pop("line", {})
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": name, "line": style} | more


def state_curve(report: Any, pinned: Any = None) -> Figure:
    """State bytes over context length of a cost report, and of the pinned one."""
    shown = [line(report.contexts, report.state_bytes, "This stack", RUN_COLORS[0], mode="lines+markers")]
    if pinned is not None:
        dashed = {"dash": "dot"}
        shown.append(line(pinned.contexts, pinned.state_bytes, "Pinned", "#8b8d98", mode="lines+markers", line=dashed))
    for trace in shown:
        trace["y"] = [value or None for value in trace["y"]]  # a log axis has no zero
    ticks = report.contexts
    labels = [f"{n // 1024}K" if n >= 1024 else str(n) for n in ticks]
    return {
        "data": shown,
        "layout": {
            "xaxis": {"type": "log", "title": {"text": "Context length"}, "tickvals": ticks, "ticktext": labels},
            "yaxis": {"type": "log", "title": {"text": "Bytes"}, "tickformat": ".0s"},
            "showlegend": pinned is not None,
        },
    }

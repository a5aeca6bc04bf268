"""Sweeps: the points of one, with means over seeds, and its metric over an axis. The address names it: `?sweep=lrs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from pydantic import BaseModel, Field

from chimeralab import LabError
from chimeralab_webui import sweeping
from chimeralab_webui.figures import choices
from chimeralab_webui.widgets import LIVE, listen, pace, plot, widget

if TYPE_CHECKING:
    from chimeralab import Lab


class Chosen(BaseModel):
    """The sweep that is shown; "" is the newest."""

    rev: int = 0
    sweep: str = Field("", max_length=100)


def build(lab: Lab) -> None:
    with gr.Column(elem_classes=["cl-panel"]):
        table = widget("sweep_table", ("pick", "act"), elem_id="sweeps")
    with gr.Column(elem_classes=["cl-panel"]):
        figure = plot(
            "Over an axis",
            controls=[
                {"name": "axis", "label": "Across", "value": "", "options": []},
                {"name": "split", "label": "up", "value": "validation", "options": _SPLITS},
            ],
            height=380,
            elem_id="sweep-figure",
            waiting="A point is drawn when its first run has ended",
        )
    timer = gr.Timer(LIVE)

    def cancel(chosen: Any, drawn: Any) -> tuple[Any, ...]:
        try:
            lab.cancel_sweep(Chosen.model_validate(chosen or {}).sweep)
        except LabError as refused:
            return refresh(chosen, drawn, str(refused))
        return refresh(chosen, drawn)

    def refresh(chosen: Any, drawn: Any, error: str = "") -> tuple[Any, ...]:
        wanted = Chosen.model_validate(chosen or {})
        known = lab.sweeps()
        names = [row.name for row in known]
        name = wanted.sweep or (names[0] if names else "")
        offered = {"rev": wanted.rev, "sweeps": names, "sweep": name, "rows": [], "error": error}
        if name not in names:
            offered["missing"] = f"There is no sweep {name}" if name else ""
            return gr.update(reply=offered), gr.update(reply={"figure": None}), pace(False)
        shown = lab.sweep_table(name)
        axes = sweeping.axes(shown)
        asked = choices(drawn)
        axis = asked.get("axis") if asked.get("axis") in axes else (axes[0] if axes else "")
        metric = shown.test_metric if asked.get("split") == "test" else shown.metric
        reply = offered | {
            "axes": axes,
            "metric": shown.metric,
            "testMetric": shown.test_metric,
            "status": shown.status,
            "reason": shown.reason,
            "members": shown.members,
            "wanted": shown.wanted,
            "rows": sweeping.rows(shown),
        }
        options = {"axis": [{"value": name, "label": name} for name in axes]}
        return (
            gr.update(reply=reply),
            gr.update(
                reply={
                    "figure": sweeping.over_axis(shown, axis, metric),
                    "options": options,
                    "choices": {"axis": axis},
                }
            ),
            pace(shown.status == "active"),
        )

    listen([table.pick, figure.choose, timer.tick], refresh, [table, figure], [table, figure, timer])
    listen(table.act, cancel, [table, figure], [table, figure, timer])


_SPLITS = [{"value": "validation", "label": "On validation"}, {"value": "test", "label": "On test"}]

"""Compare: several runs over one another. The address names them: `/ui/compare?runs=1,2`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from pydantic import BaseModel, Field

from chimeralab import LabError, RunFilter
from chimeralab_webui import comparing, run_plots
from chimeralab_webui.figures import RUN_COLORS, choices
from chimeralab_webui.run_rows import ACTIVE, colors
from chimeralab_webui.widgets import LIVE, listen, pace, plot, widget

if TYPE_CHECKING:
    from chimeralab import Lab

MOST = 50  # runs at once
RECENT = 100  # runs offered to be added


class Picked(BaseModel):
    """Runs to compare, in the order of their colours; `context` is where profiled values are read."""

    rev: int = 0
    runs: list[int] = Field([], max_length=MOST)
    context: int | None = None


def build(lab: Lab) -> None:
    options = [{"value": m.key, "label": m.title} for m in comparing.MEASURES]
    axes = [
        {"name": "pareto_x", "label": "Across", "value": "decode_ms", "options": options},
        {"name": "pareto_y", "label": "up", "value": "loss", "options": options},
    ]
    with gr.Column(elem_classes=["cl-panel"]):
        table = widget(
            "compare_table",
            ("pick",),
            most=MOST,
            colors=colors(lab),
            measures=[{"key": m.key, "title": m.title} for m in comparing.MEASURES],
            elem_id="compare",
        )
    with gr.Column(elem_classes=["cl-panel"]):
        curve = run_plots.curve("compare-curves", "Curves", 400, "Add a run to see its curve")
    with gr.Column(elem_classes=["cl-two"]):
        with gr.Column(elem_classes=["cl-panel"]):
            pareto = plot(
                "Trade-off",
                controls=axes,
                height=360,
                elem_id="compare-pareto",
                waiting="Neither was measured yet; speed and memory are, after training",
            )
        with gr.Column(elem_classes=["cl-panel"]):
            profile = run_plots.profile("compare-profile")
    with gr.Column(elem_classes=["cl-panel"]):
        tested = run_plots.tested("compare-test", 360)
    with gr.Column(elem_classes=["cl-panel"]):
        seeds = widget("seed_groups", elem_id="compare-seeds")
    with gr.Column(elem_classes=["cl-panel"]):
        differences = widget("differences", elem_id="compare-differences")
    timer = gr.Timer(LIVE)

    def refresh(
        picked: Any, pareto_value: Any, curve_value: Any, profile_value: Any, test_value: Any
    ) -> tuple[Any, ...]:
        wanted = Picked.model_validate(picked or {})
        ids, missing = _existing(lab, wanted.runs)
        comparison = lab.compare(ids)
        contexts = comparing.common_contexts(comparison)
        context = wanted.context if wanted.context in contexts else (contexts[-1] if contexts else None)
        rows = comparing.rows(comparison, context)
        names = {row["id"]: f"{row['name']} #{row['id']}" for row in rows}
        held_out = {row.id: row.held_out for row in comparison.rows}
        reply = {
            "rev": wanted.rev,
            "rows": _drawn(lab, rows),
            "contexts": contexts,
            "context": context,
            "recent": _recent(lab),
            "error": f"There is no run {', '.join(map(str, missing))}" if missing else "",
        }
        axes = choices(pareto_value)
        across, up = axes.get("pareto_x", "decode_ms"), axes.get("pareto_y", "loss")
        return (
            gr.update(reply=reply),
            gr.update(reply={"figure": comparing.pareto(rows, across, up)}),
            *run_plots.replies(lab, names, held_out, curve_value, profile_value, test_value),
            gr.update(reply=comparing.over_seeds(comparison)),
            gr.update(reply={"names": list(names.values()), "fields": _fields(comparison)}),
            pace(any(row["status"] in ACTIVE for row in rows)),
        )

    everything = [table, pareto, curve, profile, tested]
    listen(
        [table.pick, pareto.choose, curve.choose, profile.choose, tested.choose, timer.tick],
        refresh,
        everything,
        [*everything, seeds, differences, timer],
    )


def _existing(lab: Lab, wanted: list[int]) -> tuple[list[int], list[int]]:
    found, missing = [], []
    for run_id in dict.fromkeys(wanted):
        try:
            lab.run(run_id)
        except LabError:
            missing.append(run_id)
        else:
            found.append(run_id)
    return found, missing


def _drawn(lab: Lab, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their colour in the figures and their stack."""
    for position, row in enumerate(rows):
        row["color"] = RUN_COLORS[position % len(RUN_COLORS)]
        row["mixers"] = [layer["mixer"] for layer in lab.run(row["id"]).spec["stack"]["layers"]]
    return rows


def _recent(lab: Lab) -> list[dict[str, Any]]:
    return [{"id": row.id, "name": row.name, "status": row.status} for row in lab.runs(RunFilter(limit=RECENT)).rows]


def _fields(comparison: Any) -> list[dict[str, Any]]:
    """Where the specs differ; JSON has no integer keys, so values stand in the order of the rows."""
    order = [row.id for row in comparison.rows]
    return [
        {"field": field, "values": [values.get(run) for run in order]}
        for field, values in comparison.differences.items()
    ]

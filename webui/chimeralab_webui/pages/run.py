"""Run: one run as it goes, and everything that is recorded of it. The address names it: `/ui/run?id=7`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr
from pydantic import BaseModel, Field, ValidationError

from chimeralab import LabError, RunFilter, SpecError
from chimeralab_webui import run_actions, run_plots
from chimeralab_webui.run_rows import ACTIVE, RunRows, colors
from chimeralab_webui.widgets import LIVE, complaint, listen, pace, widget

if TYPE_CHECKING:
    from chimeralab import Lab

NEW_EVENTS = 500  # at one look; a long log arrives over several


class Shown(BaseModel):
    """What the page shows: a run; None: the newest."""

    rev: int = 0
    id: int | None = Field(None, ge=1, lt=10**18)
    act: dict[str, Any] | None = None


def build(lab: Lab) -> None:
    rows = RunRows(lab)
    with gr.Column(elem_classes=["cl-panel"]):
        head = widget("run_head", ("ask", "act"), colors=colors(lab), elem_id="run-head")
    with gr.Column(elem_classes=["cl-run-grid"]):
        with gr.Column(elem_classes=["cl-panel"]):
            curve = run_plots.curve("run-curve", "Curve", 360, "No point has been measured yet")
        with gr.Column(elem_classes=["cl-panel"]):
            profile = run_plots.profile("run-profile")
    with gr.Column(elem_classes=["cl-panel"]):
        tested = run_plots.tested("run-test", 320)
    with gr.Column(elem_classes=["cl-panel"]):
        details = widget(
            "run_details", ("ask",), palette=[asdict(entry) for entry in lab.palette()], elem_id="run-details"
        )
    timer = gr.Timer(LIVE)

    def refresh(
        head_value: Any, curve_value: Any, profile_value: Any, test_value: Any, details_value: Any
    ) -> tuple[Any, ...]:
        rev = (head_value or {}).get("rev", 0)
        try:
            run = _run(lab, Shown.model_validate(head_value or {}).id)
        except (LabError, ValidationError) as error:
            wrong = gr.update(reply={"rev": rev, "error": complaint(error)})
            return wrong, gr.skip(), gr.skip(), gr.skip(), gr.skip(), pace(False)
        return (
            gr.update(reply={"rev": rev, "run": _head(rows, run)}),
            *run_plots.replies(
                lab, {run.id: run.name}, {run.id: _held_out(lab, run)}, curve_value, profile_value, test_value
            ),
            gr.update(reply=_details(lab, run, details_value)),
            pace(run.status in ACTIVE),
        )

    def act(head_value: Any) -> Any:
        shown = Shown.model_validate(head_value)
        try:
            said = run_actions.perform(lab, shown.act)
            said["run"] = _head(rows, lab.run(shown.act["ids"][0]))  # type: ignore[index]
        except LabError as error:
            said = {"error": complaint(error)}
        return gr.update(reply={"rev": shown.rev, **said})

    everything = [head, curve, profile, tested, details]
    listen(
        [head.ask, curve.choose, profile.choose, tested.choose, timer.tick], refresh, everything, [*everything, timer]
    )
    listen(head.act, act, head, head)


def _run(lab: Lab, run_id: int | None) -> Any:
    if run_id is not None:
        return lab.run(run_id)
    newest = lab.runs(RunFilter(archived=None, limit=1)).rows
    if not newest:
        raise SpecError("there is no run yet", remedy="Compose a stack and launch it")
    return newest[0]


def _head(rows: RunRows, run: Any) -> dict[str, Any]:
    return rows.of([run])[0] | {
        "max_attempts": run.max_attempts,
        "notes": run.notes,
        "d_model": run.spec["stack"].get("d_model"),
        "seed": run.spec.get("seed"),
    }


def _held_out(lab: Lab, run: Any) -> dict[str, float]:
    last = {name: summary.last for name, summary in lab.summaries([run.id])[run.id].items()}
    return {name: value for name, value in last.items() if not name.startswith("train/")}


def _details(lab: Lab, run: Any, value: Any) -> dict[str, Any]:
    after = int(value["after"]) if value and value["id"] == run.id else 0
    events = lab.events(run.id, kinds=["log", "sample", "status"], after_id=after, limit=NEW_EVENTS)
    environments = lab.events(run.id, kinds=["environment"])
    return {
        "id": run.id,
        "layers": run.spec["stack"]["layers"],
        "spec": json.dumps(run.spec, indent=2, ensure_ascii=False),
        "attempts": [asdict(attempt) for attempt in lab.attempts(run.id)],
        "events": [
            {"id": e.id, "kind": e.kind, "time": e.time, "attempt": e.attempt, "payload": e.payload} for e in events
        ],
        "environment": environments[-1].payload if environments else {},
        "checkpoints": [asdict(artifact) for artifact in lab.artifacts(run.id)],
        "plugins": [asdict(plugin) for plugin in lab.run_plugins(run.id)],
    }

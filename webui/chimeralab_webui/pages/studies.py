"""Studies: what each asks, and what it found here beside published values. The address names one: `?study=mad`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from pydantic import BaseModel, Field

from chimeralab import LabError
from chimeralab_webui.figures import choices
from chimeralab_webui.widgets import LIVE, listen, pace, plot, widget

if TYPE_CHECKING:
    from chimeralab import Lab
    from chimeralab.studies import StudySpec


class Chosen(BaseModel):
    """What is shown; "" is the study that ran last, and of its scales the largest that ran, or else the smallest."""

    rev: int = 0
    study: str = Field("", max_length=100)
    scale: str = Field("", max_length=20)


def build(lab: Lab) -> None:
    with gr.Column(elem_classes=["cl-panel"]):
        page = widget("study_page", ("pick", "act"), elem_id="studies")
    with gr.Column(elem_classes=["cl-panel"]):
        figure = plot(
            "Figure",
            controls=[{"name": "figure", "label": "", "value": "", "options": []}],
            height=400,
            elem_id="study-figure",
            waiting="Drawn when the first run has ended",
        )
    timer = gr.Timer(LIVE)

    def run(chosen: Any, drawn: Any) -> tuple[Any, ...]:
        wanted = Chosen.model_validate(chosen or {})
        try:
            lab.sweep(lab.study(wanted.study).checked_sweep(wanted.scale))
        except LabError as refused:
            return refresh(chosen, drawn, str(refused))
        return refresh(chosen, drawn)

    def refresh(chosen: Any, drawn: Any, error: str = "") -> tuple[Any, ...]:
        wanted = Chosen.model_validate(chosen or {})
        known = lab.studies()
        name = wanted.study or _ran_last(lab, known)
        study = next((one for one in known if one.name == name), None)
        reply: dict[str, Any] = {"rev": wanted.rev, "studies": [one.name for one in known], "error": error}
        if study is None:
            reply["missing"] = f"There is no study {wanted.study}" if wanted.study else ""
            return gr.update(reply=reply), gr.update(reply={"figure": None}), pace(False)
        ran = lab.study_scales(study)
        measured = [name for name, status in ran.items() if status]
        scale = wanted.scale if wanted.scale in ran else (measured or [next(iter(ran))])[-1]
        nothing: dict[str, Any] = {"summary": "", "tables": [], "remarks": [], "figures": []}
        found = lab.study_sections(study, scale) if ran[scale] else nothing
        figures = {one.pop("title"): one for one in found.pop("figures")}
        asked = choices(drawn)
        title = asked.get("figure") if asked.get("figure") in figures else next(iter(figures), "")
        reply |= found | {
            "study": study.name,
            "scale": scale,
            "scales": [
                {"value": name, "label": f"{name} ({status})" if status else name} for name, status in ran.items()
            ],
            "status": ran[scale],
            "title": study.title,
            "question": study.question,
            "text": study.text,
            "about": study.scale(scale).about,
            "sources": list(study.sources),
            "needs": [f"--set {path}=… ({what})" for path, what in study.needs.items()],
        }
        shown = {
            "figure": figures.get(title),
            "options": {"figure": [{"value": name, "label": name} for name in figures]},
            "choices": {"figure": title},
        }
        return gr.update(reply=reply), gr.update(reply=shown), pace(ran[scale] == "active")

    listen([page.pick, figure.choose, timer.tick], refresh, [page, figure], [page, figure, timer])
    listen(page.act, run, [page, figure], [page, figure, timer])


def _ran_last(lab: Lab, known: Sequence[StudySpec]) -> str:
    """The study whose sweep is the newest of those with results; the first where none has any; "" without studies."""
    studies = {f"{study.name}-{scale}": study.name for study in known for scale in study.scales}
    ran = (studies[sweep.name] for sweep in lab.sweeps() if sweep.name in studies and "completed" in sweep.members)
    return next(ran, known[0].name if known else "")

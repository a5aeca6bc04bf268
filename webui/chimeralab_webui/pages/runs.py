"""Runs: the list of all, filtered, sorted and paged by the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
from pydantic import BaseModel, Field

from chimeralab import RunFilter
from chimeralab_webui import run_actions
from chimeralab_webui.run_rows import ACTIVE, RunRows, colors
from chimeralab_webui.widgets import LIVE, answering, listen, pace, widget

if TYPE_CHECKING:
    from chimeralab import Lab

STATUSES = {
    "active": ACTIVE,
    "queued": "queued",
    "running": ("starting", "running"),
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "pruned": "pruned",
}


class Wanted(BaseModel):
    """What the table in the browser asks for."""

    rev: int = 0
    text: str = Field("", max_length=500)
    status: Literal["", "active", "queued", "running", "completed", "failed", "cancelled", "pruned"] = ""
    task: str = ""
    archived: bool = False
    order_by: str = Field("-created", max_length=100)
    page: int = Field(0, ge=0)
    per_page: int = Field(25, ge=1, le=200)
    act: dict[str, Any] | None = None

    def filter(self) -> RunFilter:
        return RunFilter(
            text=self.text.strip() or None,
            status=STATUSES.get(self.status),
            task=self.task or None,
            archived=self.archived,
            order_by=self.order_by,
            limit=self.per_page,
            offset=self.page * self.per_page,
        )


def build(lab: Lab) -> None:
    rows = RunRows(lab)
    with gr.Column(elem_classes=["cl-panel"]):
        table = widget(
            "run_table",
            ("query", "act"),
            colors=colors(lab),
            tasks=[{"value": task.name, "label": task.title} for task in lab.tasks()],
            elem_id="runs",
        )
    timer = gr.Timer(LIVE)

    def page(value: Any) -> dict[str, Any]:
        wanted = Wanted.model_validate(value or {})
        found = lab.runs(wanted.filter())
        return {"rows": rows.of(found.rows), "total": found.total}

    @answering
    def show(value: Any) -> dict[str, Any]:
        return page(value)

    @answering
    def act(value: Any) -> dict[str, Any]:
        said = run_actions.perform(lab, value["act"])
        return page(value) | said

    def tick(value: Any) -> tuple[Any, Any]:
        answer = show(value)
        busy = any(row["status"] in ACTIVE for row in answer["reply"].get("rows", ()))
        return answer, pace(busy)

    listen(table.query, show, table, table)
    listen(table.act, act, table, table)
    listen(timer.tick, tick, table, [table, timer])

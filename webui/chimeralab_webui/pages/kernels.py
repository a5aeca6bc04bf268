"""Kernels: the implementations of each op on this machine, and why one cannot serve."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

from chimeralab_webui.widgets import listen, widget

if TYPE_CHECKING:
    from chimeralab import Lab


def build(lab: Lab) -> None:
    with gr.Column(elem_classes=["cl-panel"]):
        table = widget("kernel_table", ("ask",), elem_id="kernels")

    def show() -> Any:
        return gr.update(reply={"kernels": [asdict(kernel) for kernel in lab.kernels()]})

    listen(table.ask, show, None, table)

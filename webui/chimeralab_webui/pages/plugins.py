"""Plugins: what is installed, what each provides, and the traceback of what is broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

from chimeralab_webui.widgets import listen, widget

if TYPE_CHECKING:
    from chimeralab import Lab


def build(lab: Lab) -> None:
    with gr.Column(elem_classes=["cl-panel"]):
        table = widget("plugin_table", ("ask",), elem_id="plugins")

    def show() -> Any:
        return gr.update(reply={"plugins": [asdict(plugin) for plugin in lab.plugins()]})

    listen(table.ask, show, None, table)

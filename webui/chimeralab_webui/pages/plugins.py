"""Plugins: what is installed, what each provides with its options and source, and the traceback of what is broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

from chimeralab_webui.widgets import listen, widget

if TYPE_CHECKING:
    from chimeralab import Lab


def build(lab: Lab) -> None:
    with gr.Column(elem_classes=["cl-panel"]):
        listing = widget("plugin_list", ("ask",), elem_id="plugins")

    def show() -> Any:
        about = _about(lab)
        plugins = [
            asdict(plugin) | {"parts": [_part(item, about) for item in plugin.provides]} for plugin in lab.plugins()
        ]
        return gr.update(reply={"plugins": plugins})

    listen(listing.ask, show, None, listing)


def _part(item: str, about: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """What is known of one thing that a plugin provides: `item` is "mixer attention"."""
    kind, _, name = item.partition(" ")
    return {"kind": kind, "name": name} | about.get((kind, name), {})


def _about(lab: Lab) -> dict[tuple[str, str], dict[str, Any]]:
    kinds = {"mixer": "mixer", "feed_forward": "feed-forward"}
    found = {(kinds[entry.kind], entry.name): _words(entry) | {"color": entry.color} for entry in lab.palette()}
    found |= {("task", task.name): _words(task) for task in lab.tasks()}
    found |= {
        ("preset", preset.name): {
            "title": preset.title,
            "summary": preset.pattern,
            "source": preset.source,
            "sizes": [*preset.sizes],
        }
        for preset in lab.presets()
    }
    found |= {
        ("study", study.name): {"title": study.title, "summary": study.question, "source": "; ".join(study.sources)}
        for study in lab.studies()
    }
    found |= {("page", page.path): {"title": page.name} for page in lab.pages()}
    return found


def _words(entry: Any) -> dict[str, Any]:
    """Title, summary, source and options of a mixer, feed-forward or task."""
    fields = entry.schema.get("properties", {})
    options = [
        {"name": name, "default": field.get("default"), "description": field.get("description", "")}
        for name, field in fields.items()
    ]
    return {
        "title": entry.title,
        "summary": entry.summary,
        "source": getattr(entry, "source", ""),
        "options": options,
    }

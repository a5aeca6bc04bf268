"""The dashboard, as a plugin: its pages come in through the same hook as anyone's.

Importing this costs nothing; Gradio is imported when the dashboard is built (`chimeralab_webui.app`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from chimeralab import Page, hookimpl


def _page(name: str, path: str, order: int) -> Page:
    return Page(name, path, _builder(path), order)


def _builder(module: str) -> Callable[[Any], None]:
    def build(lab: Any) -> None:
        import_module(f"chimeralab_webui.pages.{module}").build(lab)

    return build


@hookimpl
def register_pages() -> Sequence[Page]:
    return [
        _page("Compose", "compose", 10),
        _page("Runs", "runs", 20),
        _page("Run", "run", 25),
        _page("Compare", "compare", 30),
        _page("Kernels", "kernels", 80),
        _page("Plugins", "plugins", 90),
    ]

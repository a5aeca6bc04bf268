"""The dashboard, as a plugin: its pages come in through the same hook as anyone's.

Importing this costs nothing; Gradio is imported when the dashboard is built (`chimeralab_webui.app`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from chimeralab import hookimpl

if TYPE_CHECKING:
    from chimeralab import Page

PAGES = (
    ("Compose", "compose", 10),
    ("Runs", "runs", 20),
    ("Run", "run", 25),
    ("Compare", "compare", 30),
    ("Sweeps", "sweeps", 40),
    ("Studies", "studies", 50),
    ("Kernels", "kernels", 80),
    ("Plugins", "plugins", 90),
)


@hookimpl
def register_pages() -> Sequence[Page]:
    from chimeralab import Page

    return [Page(name, path, _builder(path), order) for name, path, order in PAGES]


def _builder(module: str) -> Callable[[Any], None]:
    def build(lab: Any) -> None:
        import_module(f"chimeralab_webui.pages.{module}").build(lab)

    return build

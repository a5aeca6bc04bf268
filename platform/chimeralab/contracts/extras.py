"""Small contracts: presets and dashboard pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A stack by name, in the pattern language, with the stack's settings (`d_model`, `norm`, ...)."""

    name: str
    pattern: str
    title: str = ""
    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A page of the dashboard. `build(lab)` is called inside a `gradio.Blocks` route; import gradio only there."""

    name: str
    path: str  # "compose", without a slash
    build: Callable[[Any], None]
    order: int = 100

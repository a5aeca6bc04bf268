"""Small contracts: presets, their sizes, and dashboard pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Size:
    """The shapes of a preset at one size. What is left out is the preset's own; settings are laid over its settings."""

    pattern: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    vocab_size: int | None = None  # of the published model
    parameters: float | None = None  # of the published model with that vocabulary, embedding and head included
    source: str = ""  # where shapes and count are published


@dataclass(frozen=True)
class Preset:
    """A stack by name, in the pattern language, with the stack's settings (`d_model`, `norm`, ...).

    Each of its sizes is a preset by itself, called by both names: size `130m` of `mamba` is `mamba-130m`.
    """

    name: str
    pattern: str
    title: str = ""
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    vocab_size: int | None = None  # of the published model; these two are what a size says
    parameters: float | None = None
    size_of: str = ""  # the preset that this is a size of

    def at(self, size: str) -> Preset:
        """The preset that one of `sizes` is."""
        shape = self.sizes[size]
        return Preset(
            f"{self.name}-{size}",
            shape.pattern or self.pattern,
            f"{self.title or self.name}, {size}",
            shape.source or self.source,
            {**self.settings, **shape.settings},
            vocab_size=shape.vocab_size,
            parameters=shape.parameters,
            size_of=self.name,
        )


@dataclass(frozen=True)
class Page:
    """A page of the dashboard. `build(lab)` is called inside a `gradio.Blocks` route; import gradio only there.

    Pages stand in the bar by `order`, after Compose, which has the root of the dashboard. The lab's own go from 20
    (Runs) to 90 (Plugins). A page's listeners are no endpoints for other programs: those read `/api/v1`.
    """

    name: str
    path: str  # "compose", without a slash
    build: Callable[[Any], None]
    order: int = 100

"""StackSpec: the fully expanded list of layers. It is what is saved, printed, drawn and built."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_LAYERS = 1024


class LayerSpec(BaseModel):
    """One layer: a mixer and a feed-forward, each with the options that differ from its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mixer: str
    options: dict[str, Any] = {}
    ffn: str = "swiglu"
    ffn_options: dict[str, Any] = {}


class StackSpec(BaseModel):
    """A whole stack: pre-norm layers between a token embedding and a normed output head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[LayerSpec, ...] = Field(min_length=1, max_length=MAX_LAYERS)
    d_model: int = Field(256, ge=8, le=65536, multiple_of=8, description="Model width D")
    norm_eps: float = Field(1e-5, gt=0, lt=1, description="ε of the RMS norms")
    tie_embeddings: bool = Field(True, description="Output head shares the token embedding's weights")

    @property
    def text(self) -> str:
        """The layers in the pattern language."""
        from chimeralab.stack.text import to_text

        return to_text(self.layers)

"""StackSpec: the fully expanded list of layers. It is what is saved, printed, drawn and built."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

MAX_LAYERS = 1024
MAX_LORA = 4096
LABEL = re.compile(r"(?!x\d+$)[A-Za-z_][A-Za-z0-9_]*")  # x4 would read as a count


class LayerSpec(BaseModel):
    """One layer: a mixer and a feed-forward, each with the options that differ from its defaults.

    Layers with one `share` label are one layer, used at several depths; `lora` is the rank of this use's adapter.
    Both are left out of what is saved where they are not used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mixer: str
    options: dict[str, Any] = {}
    ffn: str = "swiglu"
    ffn_options: dict[str, Any] = {}
    share: str | None = None
    lora: int = Field(0, ge=0, le=MAX_LORA)

    @field_validator("share")
    @classmethod
    def _is_a_name(cls, share: str | None) -> str | None:
        if share is not None and not LABEL.fullmatch(share):
            raise ValueError("a label is letters, digits and underscores, and does not start with a digit")
        return share

    @model_validator(mode="after")
    def _adapts_something_shared(self) -> Self:
        if self.lora and self.share is None:
            raise ValueError("lora adapts a shared layer: give it a share label")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {"share": None, "lora": 0}
        return {name: value for name, value in write(self).items() if value != unused.get(name, ...)}


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

"""minGRU: a GRU whose gates do not look at the state, so that it can be scanned."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, ops
from chimeralab_plugins.projection import projection


class MinGRUConfig(MixerConfig):
    expand: int = Field(1, ge=1, le=16, description="Width of the state as a multiple of the model's")
    candidate: Literal["positive", "linear"] = Field(
        "positive", description="What may enter the state: positive numbers, as in the log-space form, or any"
    )


class MinGRUState(NamedTuple):
    h: Tensor  # B R, float32 or better


class MinGRU(Mixer):
    """h_t = (1 − z_t) ⊙ h_{t-1} + z_t ⊙ g(W_h x_t + b),  z_t = σ(W_z x_t + b),  y_t = W_o h_t,

    with g(v) = v + 1/2 for v ≥ 0 and σ(v) below (or g(v) = v). The state starts at 0.

    Source: Were RNNs All We Needed? (arXiv 2410.01201), section 3.1 and appendix B.
    """

    name = "min_gru"
    title = "minGRU"
    family = "Recurrent"
    summary = "GRU without a look at its state: one gate, one candidate, one scan"
    source = "https://arxiv.org/abs/2410.01201"
    color = "#b185db"
    views = frozenset({"parallel", "recurrent"})
    ops = ("diagonal_scan",)
    Config = MinGRUConfig
    config: MinGRUConfig

    def __init__(self, config: MinGRUConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.width = config.expand * d_model
        self.z = projection(d_model, self.width, bias=True)
        self.h = projection(d_model, self.width, bias=True)
        self.o = projection(self.width, d_model, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: MinGRUConfig, d_model: int) -> Cost:
        width = config.expand * d_model
        return (
            2 * Cost.linear(d_model, width, bias=True)
            + ops.diagonal_scan_cost(width)
            + Cost.linear(width, d_model)
            + Cost.state(lambda _: width, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MinGRUState:
        wide = torch.promote_types(dtype, torch.float32)
        return MinGRUState(torch.zeros(batch, self.width, device=device, dtype=wide))

    def forward(self, x: Tensor, state: MinGRUState | None = None) -> tuple[Tensor, MinGRUState]:  # x: B T D
        wide = torch.promote_types(x.dtype, torch.float32)
        z, new = self.z(x).to(wide), self.h(x).to(wide)
        if self.config.candidate == "positive":
            new = torch.where(new >= 0, new + 0.5, torch.sigmoid(new))
        h, last = ops.diagonal_scan(torch.sigmoid(z) * new, F.logsigmoid(-z), initial_state=state.h if state else None)
        return self.o(h.to(x.dtype)), MinGRUState(last)

"""Lightning attention: linear attention whose heads fade at fixed rates, slower in deeper layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection


class LightningConfig(MixerConfig):
    heads: int | None = Field(None, ge=1, description="Heads; default one for every 64 of the width")
    head_dim: int | None = Field(None, ge=1, le=512, description="Width of a head; default width / heads")

    def shape(self, d_model: int) -> tuple[int, int]:
        """(heads, head dim)."""
        heads = self.heads or max(1, d_model // 64)
        return heads, self.head_dim or d_model // heads

    def check(self, d_model: int) -> None:
        heads, _ = self.shape(d_model)
        if self.head_dim is None and d_model % heads:
            raise SpecError(
                f"heads {heads} do not divide width {d_model}",
                place="mixer lightning",
                remedy="Choose heads that divide the width, or set head_dim",
            )


class LightningState(NamedTuple):
    kv: Tensor  # B H K K, float32 or better


class Lightning(Mixer):
    """(q, k, v) = silu(W x),  S_t = exp(−s_h) S_{t-1} + k_t v_tᵀ,  y_t = W_o (σ(W_g x_t) ⊙ norm(S_tᵀ q_t)),

    with ALiBi's slopes for the H heads, s_h = 2^(−8h/H), h = 1 … H, times 1 − l / (L − 1) in layer l of L: the
    first layers look near, the last keeps almost everything. One RMS norm runs over all heads.

    Source: Lightning Attention-2 (arXiv 2401.04658) as in MiniMax-01 (arXiv 2501.08313); transformers'
    `MiniMaxLightningAttention`, whose rows of W are (q, k, v) head by head.
    """

    name = "lightning"
    title = "Lightning attention"
    family = "Linear attention"
    summary = "MiniMax-01's linear attention: a fixed decay by head and depth, a sigmoid output gate"
    source = "https://arxiv.org/abs/2501.08313"
    color = "#ffa600"
    views = frozenset({"chunked", "recurrent"})
    ops = ("gated_linear_attention", "rms_norm")
    Config = LightningConfig
    config: LightningConfig

    def __init__(self, config: LightningConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.heads, self.head_dim = config.shape(d_model)
        inner = self.heads * self.head_dim
        self.depth_factor = 1 - place.layer / (place.layers - 1 + 1e-5) + 1e-5
        self.qkv = projection(d_model, 3 * inner)
        self.gate = projection(d_model, inner)
        self.norm = nn.Parameter(torch.ones(inner))
        self.o = projection(inner, d_model, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: LightningConfig, d_model: int) -> Cost:
        heads, dim = config.shape(d_model)
        inner = heads * dim
        return (
            Cost.linear(d_model, 4 * inner)
            + Cost.weights(inner)
            + ops.gated_linear_attention_cost(heads, heads, dim, dim)
            + Cost.linear(inner, d_model)
            + Cost.state(lambda _: inner * dim, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> LightningState:
        wide = torch.promote_types(dtype, torch.float32)
        return LightningState(torch.zeros(batch, self.heads, self.head_dim, self.head_dim, device=device, dtype=wide))

    def forward(self, x: Tensor, state: LightningState | None = None) -> tuple[Tensor, LightningState]:  # x: B T D
        q, k, v = F.silu(self.qkv(x)).unflatten(-1, (self.heads, 3 * self.head_dim)).chunk(3, -1)
        wide = torch.promote_types(x.dtype, torch.float32)
        slopes = torch.exp2(torch.arange(1, self.heads + 1, device=x.device, dtype=wide) * (-8 / self.heads))
        y, kv = ops.gated_linear_attention(
            q, k, v, -slopes * self.depth_factor, scale=1.0, initial_state=state.kv if state else None
        )
        y = ops.rms_norm(y.flatten(-2), self.norm)
        return self.o(torch.sigmoid(self.gate(x)) * y), LightningState(kv)

"""Gated linear attention: a matrix state that each token fades by its own gate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection


class GLAConfig(MixerConfig):
    heads: int = Field(4, ge=1, description="Heads")
    expand_k: float = Field(0.5, gt=0, le=8, description="Width of queries and keys, as a multiple of the model's")
    expand_v: float = Field(1.0, gt=0, le=8, description="Width of values, as a multiple of the model's")
    gate_rank: int = Field(16, ge=1, description="Rank of the map from token to gate")
    gate_normaliser: float = Field(16.0, gt=0, description="τ: gates are σ(·)^(1/τ), so that they start near 1")

    def widths(self, d_model: int) -> tuple[int, int]:
        """(width of keys, width of values), over all heads."""
        return round(self.expand_k * d_model), round(self.expand_v * d_model)

    def check(self, d_model: int) -> None:
        for what, width in zip(("keys", "values"), self.widths(d_model), strict=True):
            if width == 0 or width % self.heads:
                raise SpecError(
                    f"heads {self.heads} do not divide the width {width} of {what}",
                    place="mixer gla",
                    remedy="Choose heads that divide it",
                )


class GLAState(NamedTuple):
    kv: Tensor  # B H K V, float32 or better


class GLA(Mixer):
    """S_t = diag(α_t) S_{t-1} + k_t v_tᵀ,  o_t = S_tᵀ q_t / √K,  y_t = W_o (silu(W_r x_t) ⊙ norm(o_t)),

    with a gate for each key channel, α_t = σ(W₂ W₁ x_t + b)^(1/τ), and an RMS norm for each head.

    Source: Gated Linear Attention Transformers (arXiv 2312.06635), section 4.4; defaults as
    `GatedLinearAttention` of the authors' flash-linear-attention.
    """

    name = "gla"
    title = "Gated linear attention"
    family = "Linear attention"
    summary = "Linear attention that forgets: a data-dependent decay for each key channel"
    source = "https://arxiv.org/abs/2312.06635"
    color = "#8e5ea2"
    views = frozenset({"chunked", "recurrent"})
    ops = ("gated_linear_attention", "rms_norm", "swiglu")
    Config = GLAConfig
    config: GLAConfig

    def __init__(self, config: GLAConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        keys, values = config.widths(d_model)
        self.q = projection(d_model, keys)
        self.k = projection(d_model, keys)
        self.v = projection(d_model, values)
        self.decay_in = projection(d_model, config.gate_rank)
        self.decay_out = projection(config.gate_rank, keys, bias=True)
        self.gate = projection(d_model, values)
        self.norm = nn.Parameter(torch.ones(values // config.heads))
        self.o = projection(values, d_model, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: GLAConfig, d_model: int) -> Cost:
        keys, values = config.widths(d_model)
        heads, rank = config.heads, config.gate_rank
        return (
            2 * Cost.linear(d_model, keys)
            + 2 * Cost.linear(d_model, values)
            + Cost.linear(d_model, rank)
            + Cost.linear(rank, keys, bias=True)
            + Cost.weights(values // heads)
            + ops.gated_linear_attention_cost(heads, heads, keys // heads, values // heads, channel_decay=True)
            + Cost.linear(values, d_model)
            + Cost.state(lambda _: keys * values // heads, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> GLAState:
        heads = self.config.heads
        keys, values = self.config.widths(self.d_model)
        wide = torch.promote_types(dtype, torch.float32)
        return GLAState(torch.zeros(batch, heads, keys // heads, values // heads, device=device, dtype=wide))

    def forward(self, x: Tensor, state: GLAState | None = None) -> tuple[Tensor, GLAState]:  # x: B T D
        wide = torch.promote_types(x.dtype, torch.float32)
        decay = F.logsigmoid(self.decay_out(self.decay_in(x)).to(wide)) / self.config.gate_normaliser
        projected = (self.q(x), self.k(x), self.v(x), decay)
        q, k, v, decay = (t.unflatten(-1, (self.config.heads, -1)) for t in projected)
        o, kv = ops.gated_linear_attention(q, k, v, decay, initial_state=state.kv if state else None)
        o = ops.rms_norm(o, self.norm, 1e-5).flatten(-2)
        return self.o(ops.swiglu(self.gate(x), o)), GLAState(kv)

"""Based: linear attention whose feature map is the Taylor polynomial of softmax's exponential."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection


class BasedConfig(MixerConfig):
    heads: int | None = Field(None, ge=1, description="Heads; default one for every 64 of the width")
    feature_dim: int = Field(16, ge=1, le=64, description="Width F of queries and keys; features grow as F²/2")

    def shape(self, d_model: int) -> tuple[int, int, int]:
        """(heads, features of a key, width of a value)."""
        heads, dim = self.heads or max(1, d_model // 64), self.feature_dim
        return heads, ops.taylor_features_count(dim), d_model // heads

    def check(self, d_model: int) -> None:
        heads = self.shape(d_model)[0]
        if d_model % heads:
            raise SpecError(
                f"heads {heads} do not divide width {d_model}",
                place="mixer based",
                remedy="Choose heads that divide the width",
            )


class BasedState(NamedTuple):
    kv: Tensor  # B H K V+1, float32 or better; the last column is the sum of the features


class Based(Mixer):
    """S_t = S_{t-1} + φ(k_t) [v_t, 1]ᵀ,  [n_t, z_t] = S_tᵀ φ(q_t),  y_t = W_o n_t / z_t,

    with φ(q)·φ(k) = 1 + s + s²/2 for s = q·k/√F, the exponential to second order. As q_i q_j = q_j q_i, half of
    the paper's F² quadratic features carry all: K = 1 + F + F(F + 1)/2. A weight is 1/2 at least: no ε is needed.

    Source: Simple linear attention language models (arXiv 2402.18668), section 4, which mixes it with short
    windows of softmax attention and short convolutions in the stack; defaults as the authors' zoology.
    """

    name = "based"
    title = "Based"
    family = "Linear attention"
    summary = "Linear attention with softmax's exponential to second order; made to stand beside a short window"
    source = "https://arxiv.org/abs/2402.18668"
    color = "#58508d"
    views = frozenset({"chunked", "recurrent"})
    ops = ("taylor_linear_attention",)
    Config = BasedConfig
    config: BasedConfig

    def __init__(self, config: BasedConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.heads = config.shape(d_model)[0]
        self.q = projection(d_model, self.heads * config.feature_dim)
        self.k = projection(d_model, self.heads * config.feature_dim)
        self.v = projection(d_model, d_model)
        self.o = projection(d_model, d_model, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: BasedConfig, d_model: int) -> Cost:
        heads, K, V = config.shape(d_model)
        return (
            2 * Cost.linear(d_model, heads * config.feature_dim)
            + 2 * Cost.linear(d_model, d_model)
            + ops.taylor_linear_attention_cost(heads, config.feature_dim, V)
            + Cost.state(lambda _: heads * K * (V + 1), accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> BasedState:
        heads, K, V = self.config.shape(self.d_model)
        wide = torch.promote_types(dtype, torch.float32)
        return BasedState(torch.zeros(batch, heads, K, V + 1, device=device, dtype=wide))

    def forward(self, x: Tensor, state: BasedState | None = None) -> tuple[Tensor, BasedState]:  # x: B T D
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)) for p in (self.q, self.k, self.v))
        y, kv = ops.taylor_linear_attention(q, k, v, initial_state=state.kv if state else None)
        return self.o(y.flatten(-2)), BasedState(kv)

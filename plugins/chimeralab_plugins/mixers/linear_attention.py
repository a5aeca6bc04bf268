"""Linear attention: softmax replaced by a feature map, so that the past fits in a matrix."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection, take_weight

PLACE = "mixer linear_attention"
EPS = 1e-6


class LinearAttentionConfig(MixerConfig):
    heads: int | None = Field(None, ge=1, description="Heads; default one for every 64 of the width")
    feature_map: Literal["elu", "relu", "identity"] = Field(
        "elu", description="φ: elu(x) + 1 of the paper, relu(x), or x itself"
    )
    normaliser: Literal["sum", "rms"] = Field(
        "sum", description="Divide by the weights' sum as in the paper, or by the output's RMS (TransNormer)"
    )

    def shape(self, d_model: int) -> tuple[int, int]:
        """(heads, head dim)."""
        heads = self.heads or max(1, d_model // 64)
        return heads, d_model // heads

    def check(self, d_model: int) -> None:
        heads, _ = self.shape(d_model)
        if d_model % heads:
            raise SpecError(
                f"heads {heads} do not divide width {d_model}",
                place=PLACE,
                remedy="Choose heads that divide the width",
            )
        if self.feature_map == "identity" and self.normaliser == "sum":
            raise SpecError(
                "weights of the identity feature map may sum to zero",
                place=PLACE,
                remedy="Choose normaliser=rms, or a positive feature map",
            )


class LinearAttentionState(NamedTuple):
    kv: Tensor  # B H K V, float32 or better
    k_sum: Tensor  # B H K, float32 or better; no elements (B 0 0) where the sum is not needed


class LinearAttention(Mixer):
    """S_t = S_{t-1} + φ(k_t) v_tᵀ,  z_t = z_{t-1} + φ(k_t),  y_t = S_tᵀ φ(q_t) / (φ(q_t) · z_t).

    Source: Transformers are RNNs (arXiv 2006.16236), equations 16–20. `normaliser=rms` divides S_tᵀ φ(q_t) by
    its own RMS instead (TransNormer, arXiv 2210.10340).
    """

    name = "linear_attention"
    title = "Linear attention"
    family = "Linear attention"
    summary = "Attention with a feature map for softmax: constant memory, no forgetting"
    source = "https://arxiv.org/abs/2006.16236"
    color = "#e07a5f"
    views = frozenset({"chunked", "recurrent"})
    ops = ("gated_linear_attention", "rms_norm")
    Config = LinearAttentionConfig
    config: LinearAttentionConfig

    def __init__(
        self,
        config: LinearAttentionConfig,
        d_model: int,
        place: Place = Place(),  # noqa: B008
    ) -> None:
        super().__init__(config, d_model, place)
        self.heads, self.head_dim = config.shape(d_model)
        self.q = projection(d_model, d_model)
        self.k = projection(d_model, d_model)
        self.v = projection(d_model, d_model)
        self.o = projection(d_model, d_model, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: LinearAttentionConfig, d_model: int) -> Cost:
        heads, dim = config.shape(d_model)
        k_sum = d_model if config.normaliser == "sum" else 0
        return (
            4 * Cost.linear(d_model, d_model)
            + ops.gated_linear_attention_cost(heads, heads, dim, dim)
            + Cost.state(lambda _: d_model * dim + k_sum, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> LinearAttentionState:
        wide = torch.promote_types(dtype, torch.float32)
        H, K = self.heads, self.head_dim
        summed = (H, K) if self.config.normaliser == "sum" else (0, 0)
        return LinearAttentionState(
            torch.zeros(batch, H, K, K, device=device, dtype=wide),
            torch.zeros(batch, *summed, device=device, dtype=wide),
        )

    def forward(
        self, x: Tensor, state: LinearAttentionState | None = None
    ) -> tuple[Tensor, LinearAttentionState]:  # x: B T D
        if state is None:
            state = self.init_state(x.shape[0], 0, device=x.device, dtype=x.dtype)
        q, k, v = (p(x).unflatten(-1, (self.heads, self.head_dim)) for p in (self.q, self.k, self.v))
        q, k = self._features(q), self._features(k)
        y, kv = ops.gated_linear_attention(q, k, v, scale=1.0, initial_state=state.kv)
        if self.config.normaliser == "rms":
            return self.o(ops.rms_norm(y, None).flatten(-2)), LinearAttentionState(kv, state.k_sum)
        sums = k.to(state.k_sum.dtype).cumsum(1) + state.k_sum.unsqueeze(1)  # B T H K
        weight = (q.to(sums.dtype) * sums).sum(-1, keepdim=True)
        y = (y / (weight + EPS)).to(x.dtype)
        return self.o(y.flatten(-2)), LinearAttentionState(kv, sums[:, -1])

    def _features(self, x: Tensor) -> Tensor:
        match self.config.feature_map:
            case "elu":
                return F.elu(x) + 1
            case "relu":
                return F.relu(x)
            case _:
                return x

    def init_from_attention(self, q: Tensor, k: Tensor, v: Tensor, o: Tensor) -> None:
        """Take the projections; key-value heads that queries share are repeated.

        Raises SpecError: the projections are not those of a layer of this width.
        """
        shared_k, shared_v = k.split(self.head_dim), v.split(self.head_dim)
        owner = [head * len(shared_k) // self.heads for head in range(self.heads)]
        take_weight(self.q, q, PLACE)
        take_weight(self.k, torch.cat([shared_k[i] for i in owner]), PLACE)
        take_weight(self.v, torch.cat([shared_v[i] for i in owner]), PLACE)
        take_weight(self.o, o, PLACE)

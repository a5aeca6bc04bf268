"""Kimi delta attention: the delta rule with a decay for each key channel."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Place, ops
from chimeralab_plugins.delta import DeltaConfig, DeltaMixer
from chimeralab_plugins.projection import projection
from chimeralab_plugins.step_size import step_bias


class KDAConfig(DeltaConfig):
    gate_rank: int | None = Field(
        None, ge=1, description="Rank of the maps from token to decay and to gate; default the width of a head's values"
    )
    mixer: ClassVar[str] = "kda"

    def rank(self, d_model: int) -> int:
        return self.gate_rank or self.shape(d_model).value_dim


class KDA(DeltaMixer):
    """S_t = (I − β_t k_t k_tᵀ) diag(α_t) S_{t-1} + β_t k_t v_tᵀ,  o_t = S_tᵀ q_t / √K,

    y_t = W_o (norm(o_t) ⊙ σ(U₂ U₁ x_t)), with α_t = exp(−exp(A_log) softplus(W₂ W₁ x_t + dt_bias)) for each key
    channel; q, k, v, β as in DeltaNet.

    Source: Kimi Linear (arXiv 2510.26692), section 4; heads of 128 and the initialisation as `KimiDeltaAttention` of
    flash-linear-attention.
    """

    name = "kda"
    title = "Kimi delta attention"
    family = "Delta rule"
    summary = "Delta rule with a decay for each key channel (Kimi Linear)"
    source = "https://arxiv.org/abs/2510.26692"
    color = "#c9a227"
    ops = ("delta_rule", "short_convolution", "rms_norm")
    Config = KDAConfig
    config: KDAConfig

    def __init__(self, config: KDAConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        _, H, K, V = self.shape
        rank = config.rank(d_model)
        self.decay_in = projection(d_model, rank)
        self.decay_out = projection(rank, H * K)
        self.A_log = nn.Parameter(torch.empty(H).uniform_(1, 16).log())
        self.dt_bias = nn.Parameter(step_bias(H * K))
        self.gate_in = projection(d_model, rank)
        self.gate_out = projection(rank, H * V)

    @classmethod
    def cost(cls, config: KDAConfig, d_model: int) -> Cost:
        G, H, K, V = config.shape(d_model)
        rank = config.rank(d_model)
        return (
            cls.base_cost(config, d_model)
            + ops.delta_rule_cost(H, G, K, V, channel_decay=True)
            + 2 * Cost.linear(d_model, rank)
            + Cost.linear(rank, H * K + H * V)
            + Cost.weights(H + H * K)
        )

    def log_decay(self, x: Tensor) -> Tensor:  # B T H K
        wide = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus(self.decay_out(self.decay_in(x)).to(wide) + self.dt_bias.to(wide))
        return -self.A_log.to(wide).exp().unsqueeze(-1) * step.unflatten(-1, (self.shape.heads, -1))

    def gated(self, x: Tensor, y: Tensor) -> Tensor:  # y: B T H V
        return y * torch.sigmoid(self.gate_out(self.gate_in(x))).view_as(y)

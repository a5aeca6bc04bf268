"""Gated DeltaNet: the delta rule with a state that fades."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Place, SpecError, ops
from chimeralab_plugins.delta import DeltaConfig, DeltaMixer
from chimeralab_plugins.projection import projection
from chimeralab_plugins.step_size import step_bias


class GatedDeltaNetConfig(DeltaConfig):
    heads: int | None = Field(
        None, ge=1, description="Heads of values; default such that a key has 256 channels, or one head"
    )
    key_heads: int | None = Field(
        None, ge=1, description="Heads of queries and keys, each shared by heads / key_heads; default heads"
    )
    expand_k: float = Field(0.75, gt=0, le=8, description="Width of queries and keys, as a multiple of the model's")
    expand_v: float = Field(1.5, gt=0, le=8, description="Width of values, as a multiple of the model's")
    mixer: ClassVar[str] = "gated_delta_net"

    def head_count(self, d_model: int) -> tuple[int, int]:
        heads = self.heads or max(1, round(self.expand_k * d_model / 256))
        return self.key_heads or heads, heads

    def check(self, d_model: int) -> None:
        super().check(d_model)
        key_heads, heads = self.head_count(d_model)
        if heads % key_heads:
            raise SpecError(
                f"key_heads {key_heads} do not divide heads {heads}",
                place=f"mixer {self.mixer}",
                remedy="Choose key_heads that divide heads",
            )


class GatedDeltaNet(DeltaMixer):
    """S_t = α_t (I − β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,  o_t = S_tᵀ q_t / √K,

    y_t = W_o (norm(o_t) ⊙ silu(W_g x_t)), with α_t = exp(−exp(A_log) softplus(W_a x_t + dt_bias)) for each head;
    q, k, v, β as in DeltaNet.

    Source: Gated Delta Networks (arXiv 2412.06464); shapes and initialisation as `GatedDeltaNet` of the authors'
    flash-linear-attention (key width 3/4, value width 3/2 of the model's). Fewer key heads than heads: Qwen3-Next.
    """

    name = "gated_delta_net"
    title = "Gated DeltaNet"
    family = "Delta rule"
    summary = "Delta rule with a decay: writes precisely and forgets at will (Qwen3-Next, OLMo Hybrid)"
    source = "https://arxiv.org/abs/2412.06464"
    color = "#d98032"
    ops = ("delta_rule", "short_convolution", "rms_norm", "swiglu")
    Config = GatedDeltaNetConfig
    config: GatedDeltaNetConfig

    def __init__(self, config: GatedDeltaNetConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        _, H, _, V = self.shape
        self.a = projection(d_model, H)
        self.A_log = nn.Parameter(torch.empty(H).uniform_(1e-2, 16).log())
        self.dt_bias = nn.Parameter(step_bias(H))
        self.gate = projection(d_model, H * V)

    @classmethod
    def cost(cls, config: GatedDeltaNetConfig, d_model: int) -> Cost:
        G, H, K, V = config.shape(d_model)
        return (
            cls.base_cost(config, d_model)
            + ops.delta_rule_cost(H, G, K, V)
            + Cost.linear(d_model, H)
            + Cost.weights(2 * H)
            + Cost.linear(d_model, H * V)
        )

    def log_decay(self, x: Tensor) -> Tensor:  # B T H
        wide = torch.promote_types(x.dtype, torch.float32)
        return -self.A_log.to(wide).exp() * F.softplus(self.a(x).to(wide) + self.dt_bias.to(wide))

    def gated(self, x: Tensor, y: Tensor) -> Tensor:  # y: B T H V
        return ops.swiglu(self.gate(x).view_as(y), y)

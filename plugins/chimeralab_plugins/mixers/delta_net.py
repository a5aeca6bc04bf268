"""DeltaNet: linear attention that corrects what its state holds under a key."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from chimeralab import Cost, Place, ops
from chimeralab_plugins.delta import DeltaConfig, DeltaMixer
from chimeralab_plugins.projection import projection


class DeltaNetConfig(DeltaConfig):
    gate: bool = Field(False, description="Multiply the output by silu(W_g x)")
    mixer: ClassVar[str] = "delta_net"


class DeltaNet(DeltaMixer):
    """S_t = (I − β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,  o_t = S_tᵀ q_t / √K,  y_t = W_o norm(o_t),

    with q, k, v = silu(conv(W x_t)), q and k of length 1, β_t = σ(W_b x_t), and an RMS norm for each head.

    Source: Parallelizing Linear Transformers with the Delta Rule (arXiv 2406.06484); defaults as `DeltaNet` of the
    authors' flash-linear-attention, heads of 128 as in their models. Negative eigenvalues: arXiv 2411.12537.
    """

    name = "delta_net"
    title = "DeltaNet"
    family = "Delta rule"
    summary = "The delta rule: a token replaces what the state holds under its key"
    source = "https://arxiv.org/abs/2406.06484"
    color = "#b5651d"
    ops = ("delta_rule", "short_convolution", "rms_norm", "swiglu")
    Config = DeltaNetConfig
    config: DeltaNetConfig

    def __init__(self, config: DeltaNetConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        _, H, _, V = self.shape
        self.gate = projection(d_model, H * V) if config.gate else None

    @classmethod
    def cost(cls, config: DeltaNetConfig, d_model: int) -> Cost:
        G, H, K, V = config.shape(d_model)
        gate = Cost.linear(d_model, H * V) if config.gate else Cost()
        return cls.base_cost(config, d_model) + ops.delta_rule_cost(H, G, K, V) + gate

    def gated(self, x: Tensor, y: Tensor) -> Tensor:  # y: B T H V
        return y if self.gate is None else ops.swiglu(self.gate(x).view_as(y), y)

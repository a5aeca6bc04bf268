"""Short convolution: a gated depthwise convolution over a few tokens."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, Place, ops
from chimeralab_plugins.projection import projection


class ShortConvConfig(MixerConfig):
    taps: int = Field(3, ge=2, le=64, description="Tokens that the convolution sees, the current one included")
    bias: bool = Field(False, description="Biases in the projections and the convolution")


class ShortConvState(NamedTuple):
    tail: Tensor  # B W-1 D: last inputs of the convolution


class ShortConv(Mixer):
    """(b, c, u) = W_in x,  y = W_out (c ⊙ conv(b ⊙ u)), with a causal depthwise convolution of W taps.

    Source: LFM2 (arXiv 2511.23404), `Lfm2ShortConv` of transformers.
    """

    name = "short_conv"
    title = "Short convolution"
    family = "Convolution"
    summary = "Gated convolution over a few tokens: local, cheap, a tiny state (LFM2)"
    source = "https://arxiv.org/abs/2511.23404"
    color = "#3aa17e"
    views = frozenset({"convolutional", "recurrent"})
    ops = ("short_convolution",)
    Config = ShortConvConfig
    config: ShortConvConfig

    def __init__(self, config: ShortConvConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.in_proj = projection(d_model, 3 * d_model, bias=config.bias)  # rows of b, c, u
        bound = 1 / math.sqrt(config.taps)
        self.conv_weight = nn.Parameter(torch.empty(d_model, config.taps).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(d_model)) if config.bias else None
        self.out_proj = projection(d_model, d_model, bias=config.bias, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: ShortConvConfig, d_model: int) -> Cost:
        return (
            Cost.linear(d_model, 3 * d_model, bias=config.bias)
            + Cost.weights(d_model * (config.taps + config.bias))
            + ops.short_convolution_cost(d_model, config.taps)
            + Cost.linear(d_model, d_model, bias=config.bias)
            + Cost.state(lambda _: d_model * (config.taps - 1))
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> ShortConvState:
        return ShortConvState(torch.zeros(batch, self.config.taps - 1, self.d_model, device=device, dtype=dtype))

    def forward(self, x: Tensor, state: ShortConvState | None = None) -> tuple[Tensor, ShortConvState]:  # x: B T D
        b, c, u = self.in_proj(x).chunk(3, -1)
        mixed, tail = ops.short_convolution(
            b * u, self.conv_weight, self.conv_bias, initial_state=state.tail if state else None
        )
        return self.out_proj(c * mixed), ShortConvState(tail)

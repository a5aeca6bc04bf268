"""BaseConv: a convolution, short or as long as the sequence, times a map of its input."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, Place, ops
from chimeralab_plugins.implicit_filter import ImplicitFilter
from chimeralab_plugins.past import Past, convolve
from chimeralab_plugins.projection import projection

BANDS, HIDDEN, DEPTH, FREQUENCY = 1, 16, 3, 1.0
"""Of the long filters' network."""


class BaseConvConfig(MixerConfig):
    taps: int = Field(3, ge=0, le=64, description="Taps of the convolution; 0: a long one, whose taps a network gives")
    length: int = Field(512, ge=1, le=1 << 20, description="Taps of the long one: set it to the tokens trained on")


class BaseConvState(NamedTuple):
    tail: Tensor | None  # B W-1 D: last inputs of a short convolution
    past: Past | None  # inputs of a long one


class BaseConv(Mixer):
    """y = (W x + b) ⊙ conv(x) + x, where conv(x) is k * x + c with a few taps, or k * x + x with long filters k.

    The simplest gated convolution: Hyena, H3 and others are made of such steps. It has no map after it. Zoology stacks
    two: a short one finds the token before, a long one looks for it.

    Source: Zoology (arXiv 2312.04927), section 4; shapes, and the long filters' network, of the authors' `BaseConv`.
    """

    name = "base_conv"
    title = "BaseConv"
    family = "Convolution"
    summary = "A convolution, short or long, times a map of its input: what gated convolutions come down to"
    source = "https://arxiv.org/abs/2312.04927"
    color = "#7ba05b"
    views = frozenset({"convolutional", "recurrent"})
    ops = ("long_convolution", "short_convolution")
    Config = BaseConvConfig
    config: BaseConvConfig

    def __init__(self, config: BaseConvConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.map = projection(d_model, d_model, bias=True)
        if config.taps:
            bound = 1 / math.sqrt(config.taps)
            self.conv_weight = nn.Parameter(torch.empty(d_model, config.taps).uniform_(-bound, bound))
            self.conv_bias = nn.Parameter(torch.empty(d_model).uniform_(-bound, bound))
        else:
            self.filter = ImplicitFilter(d_model, config.length, BANDS, HIDDEN, DEPTH, FREQUENCY)

    @classmethod
    def cost(cls, config: BaseConvConfig, d_model: int) -> Cost:
        taps, length = config.taps, config.length
        if taps:
            conv = Cost.weights(d_model * (taps + 1)) + ops.short_convolution_cost(d_model, taps)
            state = Cost.state(lambda _: d_model * (taps - 1))
        else:
            conv = ImplicitFilter.cost(d_model, length, BANDS, HIDDEN, DEPTH)
            conv += ops.long_convolution_cost(d_model, length)
            state = Cost.state(lambda L: d_model * min(L, length))
        return Cost.linear(d_model, d_model, bias=True) + conv + state

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> BaseConvState:
        taps, D = self.config.taps, self.d_model
        if taps:
            return BaseConvState(torch.zeros(batch, taps - 1, D, device=device, dtype=dtype), None)
        slots = min(max_length, self.config.length)
        return BaseConvState(None, Past.empty(batch, slots, D, device=device, dtype=dtype))

    def forward(self, x: Tensor, state: BaseConvState | None = None) -> tuple[Tensor, BaseConvState]:  # x: B T D
        """Raises SpecError when a preallocated history has no room for x."""
        if self.config.taps:
            u, tail = ops.short_convolution(
                x, self.conv_weight, self.conv_bias, initial_state=state.tail if state else None
            )
            return self.map(x) * u + x, BaseConvState(tail, None)
        past = state.past if state is not None else None
        wide = torch.promote_types(x.dtype, torch.float32)
        taps = self.filter.taps(x.shape[1] + (past.inputs.shape[1] if past is not None else 0), wide)
        y = convolve(x, taps, taps.new_ones(self.d_model), self.map(x), past.inputs if past is not None else None)
        return y + x, BaseConvState(None, Past.after(past, x, self.config.length))

"""Hyena: gates and implicit long convolutions in turn."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, ParamGroup, Place, ops
from chimeralab_plugins.implicit_filter import ImplicitFilter
from chimeralab_plugins.past import Past, convolve
from chimeralab_plugins.projection import projection
from chimeralab_plugins.state_space.parameters import groups_with_own_rate


class HyenaConfig(MixerConfig):
    order: int = Field(2, ge=2, le=8, description="Order N: N gates and N - 1 long convolutions")
    length: int = Field(
        512, ge=1, le=1 << 20, description="Taps of the long filters: set it to the tokens trained on; older are unseen"
    )
    conv: int = Field(3, ge=2, le=16, description="Taps of the short convolution over the projections")
    bands: int = Field(1, ge=1, le=64, description="Frequencies in the filters' encoding of positions")
    hidden: int = Field(64, ge=1, le=512, description="Width of the filters' network")
    depth: int = Field(3, ge=1, le=8, description="Hidden layers of the filters' network")
    frequency: float = Field(10.0, gt=0, le=100, description="Frequency ω of its sines at the start")
    filter_lr_scale: float = Field(1.0, gt=0, le=10, description="Learning rate of the filters, in the run's")


class HyenaState(NamedTuple):
    tail: Tensor  # B W-1 (N+1)D: last inputs of the short convolution
    past: Past  # of (N-1)D channels: inputs of the long convolutions


class Hyena(Mixer):
    """x_1 … x_N, v = shortconv(W x + b);  for n = N … 2:  u = x_n ⊙ v, v ← k_n * u + d_n ⊙ u;  y = W_o (x_1 ⊙ v) + b_o

    with filters k_n that a small network gives tap by tap (`ImplicitFilter`). There is no recurrence of constant
    size: the state is the input of each long convolution, and decoding a token reads all of it, and computes the
    filters anew.

    Source: Hyena Hierarchy (arXiv 2302.10866), definition 3.1; defaults of the authors' `HyenaOperator`.
    """

    name = "hyena"
    title = "Hyena"
    family = "Convolution"
    summary = "Long convolutions with learned implicit filters, and gates between"
    source = "https://arxiv.org/abs/2302.10866"
    color = "#c98b2b"
    views = frozenset({"convolutional", "recurrent"})
    ops = ("long_convolution", "short_convolution")
    Config = HyenaConfig
    config: HyenaConfig

    def __init__(self, config: HyenaConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        inner = (config.order + 1) * d_model
        self.in_proj = projection(d_model, inner, bias=True)  # rows of x_1 … x_N, v
        bound = 1 / math.sqrt(config.conv)
        self.conv_weight = nn.Parameter(torch.empty(inner, config.conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(inner).uniform_(-bound, bound))
        channels = (config.order - 1) * d_model
        self.filter = ImplicitFilter(
            channels, config.length, config.bands, config.hidden, config.depth, config.frequency
        )
        self.skip = nn.Parameter(torch.randn(channels))
        self.out_proj = projection(d_model, d_model, bias=True, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: HyenaConfig, d_model: int) -> Cost:
        inner, channels = (config.order + 1) * d_model, (config.order - 1) * d_model
        return (
            Cost.linear(d_model, inner, bias=True)
            + Cost.weights(inner * (config.conv + 1) + channels)
            + ops.short_convolution_cost(inner, config.conv)
            + ImplicitFilter.cost(channels, config.length, config.bands, config.hidden, config.depth)
            + ops.long_convolution_cost(channels, config.length)
            + Cost.linear(d_model, d_model, bias=True)
            + Cost.state(lambda L: inner * (config.conv - 1) + channels * min(L, config.length))
        )

    def param_groups(self) -> list[ParamGroup]:
        return groups_with_own_rate(self, self.filter.parameters(), self.config.filter_lr_scale)

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> HyenaState:
        inner, channels = self.conv_weight.shape[0], self.skip.shape[0]
        return HyenaState(
            torch.zeros(batch, self.config.conv - 1, inner, device=device, dtype=dtype),
            Past.empty(batch, min(max_length, self.config.length), channels, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, state: HyenaState | None = None) -> tuple[Tensor, HyenaState]:  # x: B T D
        """Raises SpecError when a preallocated history has no room for x."""
        past = state.past if state is not None else None
        projected, tail = ops.short_convolution(
            self.in_proj(x), self.conv_weight, self.conv_bias, initial_state=state.tail if state else None
        )
        *gates, v = projected.split(self.d_model, -1)
        wide = torch.promote_types(x.dtype, torch.float32)
        taps = self.filter.taps(x.shape[1] + (past.inputs.shape[1] if past is not None else 0), wide)

        first, *others = gates
        inputs = []
        for n, gate in enumerate(reversed(others)):
            part = slice(n * self.d_model, (n + 1) * self.d_model)
            v = gate * v
            inputs.append(v)
            after = first if n == len(others) - 1 else None
            v = convolve(v, taps[part], self.skip[part], after, past.inputs[..., part] if past is not None else None)
        past = Past.after(past, torch.cat(inputs, -1), self.config.length)
        return self.out_proj(v), HyenaState(tail, past)

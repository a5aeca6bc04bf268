"""Monarch Mixer along the sequence: one gated long convolution, and another past the gates."""

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


class MonarchConfig(MixerConfig):
    length: int = Field(
        512, ge=1, le=1 << 20, description="Taps of the long filters: set it to the tokens trained on; older are unseen"
    )
    residual: bool = Field(True, description="A second long convolution, of the input itself, past the gates")
    conv: int = Field(3, ge=2, le=16, description="Taps of the short convolution over the projections")
    bands: int = Field(2, ge=1, le=64, description="Frequencies in the filters' encoding of positions")
    hidden: int = Field(128, ge=1, le=512, description="Width of the filters' network")
    depth: int = Field(3, ge=1, le=8, description="Hidden layers of the filters' network")
    frequency: float = Field(10.0, gt=0, le=100, description="Frequency ω of its sines at the start")
    filter_lr_scale: float = Field(1.0, gt=0, le=10, description="Learning rate of the filters, in the run's")

    def filters(self) -> int:
        """Long convolutions of each channel."""
        return 2 if self.residual else 1


class MonarchState(NamedTuple):
    tail: Tensor  # B W-1 3D: last inputs of the short convolution
    past: Past  # of D channels, 2D with the residual: inputs of the long convolutions


class MonarchMixer(Mixer):
    """x_1, x_2, v = shortconv(W x + b);  y = W_o (x_2 ⊙ (k_1 * (x_1 ⊙ v) + d_1 ⊙ x_1 ⊙ v) + k_2 * x + d_2 ⊙ x) + b_o.

    The convolution is M⁻¹ (M k ⊙ M u) with the Monarch matrix M = L P R of the DFT, L and R block-diagonal with blocks
    of √n, P a permutation; u is padded with zeros to n ≥ 2T, which makes it causal. M is not learned: the filters
    are, as in Hyena. `long_convolution` computes it by the FFT, the product of log n such factors.

    Source: Monarch Mixer (arXiv 2310.12109), section 3 and 4.2, `MonarchMixerSequenceMixing` of the authors, in the
    causal form that leaves out the filters towards the past. For the model dimension: feed-forward `monarch_mlp`.
    """

    name = "monarch"
    title = "Monarch Mixer"
    family = "Convolution"
    summary = "A gated and an ungated long convolution with implicit filters (M2)"
    source = "https://arxiv.org/abs/2310.12109"
    color = "#e0a458"
    views = frozenset({"convolutional", "recurrent"})
    ops = ("long_convolution", "short_convolution")
    Config = MonarchConfig
    config: MonarchConfig

    def __init__(self, config: MonarchConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.in_proj = projection(d_model, 3 * d_model, bias=True)  # rows of x_1, x_2, v
        bound = 1 / math.sqrt(config.conv)
        self.conv_weight = nn.Parameter(torch.empty(3 * d_model, config.conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(3 * d_model).uniform_(-bound, bound))
        network = (config.length, config.bands, config.hidden, config.depth, config.frequency)
        self.filters = nn.ModuleList(ImplicitFilter(d_model, *network) for _ in range(config.filters()))
        self.skip = nn.Parameter(torch.randn(config.filters() * d_model))
        self.out_proj = projection(d_model, d_model, bias=True, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: MonarchConfig, d_model: int) -> Cost:
        channels = config.filters() * d_model
        one_filter = ImplicitFilter.cost(d_model, config.length, config.bands, config.hidden, config.depth)
        return (
            Cost.linear(d_model, 3 * d_model, bias=True)
            + Cost.weights(3 * d_model * (config.conv + 1) + channels)
            + ops.short_convolution_cost(3 * d_model, config.conv)
            + config.filters() * one_filter
            + ops.long_convolution_cost(channels, config.length)
            + Cost.linear(d_model, d_model, bias=True)
            + Cost.state(lambda L: 3 * d_model * (config.conv - 1) + channels * min(L, config.length))
        )

    def param_groups(self) -> list[ParamGroup]:
        return groups_with_own_rate(self, self.filters.parameters(), self.config.filter_lr_scale)

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MonarchState:
        slots, channels = min(max_length, self.config.length), self.skip.shape[0]
        return MonarchState(
            torch.zeros(batch, self.config.conv - 1, 3 * self.d_model, device=device, dtype=dtype),
            Past.empty(batch, slots, channels, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, state: MonarchState | None = None) -> tuple[Tensor, MonarchState]:  # x: B T D
        """Raises SpecError when a preallocated history has no room for x."""
        past, D = state.past if state is not None else None, self.d_model
        projected, tail = ops.short_convolution(
            self.in_proj(x), self.conv_weight, self.conv_bias, initial_state=state.tail if state else None
        )
        x1, x2, v = projected.split(D, -1)
        inputs, gates = (x1 * v, x), (x2, None)
        wide = torch.promote_types(x.dtype, torch.float32)
        reach = x.shape[1] + (past.inputs.shape[1] if past is not None else 0)
        parts = []
        for n, network in enumerate(self.filters):
            part = slice(n * D, (n + 1) * D)
            before = past.inputs[..., part] if past is not None else None
            parts.append(convolve(inputs[n], network.taps(reach, wide), self.skip[part], gates[n], before))
        seen = torch.cat([u.to(v.dtype) for u in inputs[: len(parts)]], -1)
        y = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return self.out_proj(y), MonarchState(tail, Past.after(past, seen, self.config.length))

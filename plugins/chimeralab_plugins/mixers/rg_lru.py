"""RG-LRU: a gated linear recurrence of width-preserving state, the recurrent block of Hawk and Griffin."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection

STRENGTH = 8.0  # c
STEEPEST = 1000.0
"""Slope of the square root at most: at a = 1 it is infinite."""


class RGLRUConfig(MixerConfig):
    width: int | None = Field(None, ge=1, description="Width of the recurrence; empty: the model's")
    heads: int | None = Field(None, ge=1, description="Blocks of the gates' block-diagonal maps; empty: one for 256")
    conv: int = Field(4, ge=2, le=16, description="Taps of the convolution")

    def shape(self, d_model: int) -> tuple[int, int]:
        """(width of the recurrence, heads)."""
        width = self.width or d_model
        return width, self.heads or max(1, width // 256)

    def check(self, d_model: int) -> None:
        width, heads = self.shape(d_model)
        if width % heads:
            raise SpecError(
                f"heads {heads} do not divide the width {width} of the recurrence",
                place="mixer rg_lru",
                remedy="Choose heads that divide it",
            )


class RGLRUState(NamedTuple):
    conv: Tensor  # B W-1 R: last inputs of the convolution
    h: Tensor  # B R, float32 or better
    length: Tensor  # tokens seen


class RGLRU(Mixer):
    """y = W_o (gelu(W_y x + b) ⊙ h), and with u = conv(W_x x + b), for each channel

        r_t = σ(W_a u_t + b_a),  i_t = σ(W_i u_t + b_i),  a_t = σ(Λ)^{c r_t},  c = 8,
        h_t = a_t ⊙ h_{t-1} + √(1 − a_t²) ⊙ (i_t ⊙ u_t),

    W_a and W_i block-diagonal. The first token enters undiminished (1 for the root).

    Source: Griffin (arXiv 2402.19427), section 2.4; initialisation and the bounded slope of the root as in the
    authors' recurrentgemma. `decay` is theirs: softplus of it is −log σ(Λ).
    """

    name = "rg_lru"
    title = "RG-LRU (Hawk)"
    family = "Recurrent"
    summary = "Real-gated linear recurrence: one number a channel, input and recurrence gates"
    source = "https://arxiv.org/abs/2402.19427"
    color = "#7a9e2f"
    views = frozenset({"parallel", "recurrent"})
    ops = ("diagonal_scan", "short_convolution")
    Config = RGLRUConfig
    config: RGLRUConfig

    def __init__(self, config: RGLRUConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.width, heads = config.shape(d_model)
        block = self.width // heads
        self.y = projection(d_model, self.width, bias=True)
        self.x = projection(d_model, self.width, bias=True)
        self.conv_weight = nn.Parameter(torch.randn(self.width, config.conv) * 0.1 / math.sqrt(config.conv))
        self.conv_bias = nn.Parameter(torch.zeros(self.width))
        self.input_gate = nn.Parameter(torch.randn(heads, block, block) / math.sqrt(block))  # H in out
        self.input_bias = nn.Parameter(torch.zeros(heads, block))
        self.recurrence_gate = nn.Parameter(torch.randn(heads, block, block) / math.sqrt(block))
        self.recurrence_bias = nn.Parameter(torch.zeros(heads, block))
        for bias in (self.input_bias, self.recurrence_bias):
            bias.weight_decay = False  # type: ignore[attr-defined]
        # σ(Λ)^c uniform over a ring between 0.9 and 0.999.
        radius = torch.empty(self.width).uniform_(0.9**2, 0.999**2).sqrt()
        self.decay = nn.Parameter(torch.log(torch.expm1(-radius.log() / STRENGTH)))
        self.o = projection(self.width, d_model, bias=True, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: RGLRUConfig, d_model: int) -> Cost:
        width, heads = config.shape(d_model)
        return (
            2 * Cost.linear(d_model, width, bias=True)
            + Cost.weights(width * (config.conv + 1) + width)
            + ops.short_convolution_cost(width, config.conv)
            + 2 * heads * Cost.linear(width // heads, width // heads, bias=True)
            + ops.diagonal_scan_cost(width)
            + Cost.linear(width, d_model, bias=True)
            + Cost.state(lambda _: width * (config.conv - 1))
            + Cost.state(lambda _: width, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> RGLRUState:
        wide = torch.promote_types(dtype, torch.float32)
        return RGLRUState(
            torch.zeros(batch, self.config.conv - 1, self.width, device=device, dtype=dtype),
            torch.zeros(batch, self.width, device=device, dtype=wide),
            torch.zeros((), device=device, dtype=torch.int64),
        )

    def forward(self, x: Tensor, state: RGLRUState | None = None) -> tuple[Tensor, RGLRUState]:  # x: B T D
        if state is None:
            state = self.init_state(x.shape[0], 0, device=x.device, dtype=x.dtype)
        u, tail = ops.short_convolution(self.x(x), self.conv_weight, self.conv_bias, initial_state=state.conv)
        wide = torch.promote_types(x.dtype, torch.float32)
        i = torch.sigmoid(_by_block(u, self.input_gate, self.input_bias))
        r = torch.sigmoid(_by_block(u, self.recurrence_gate, self.recurrence_bias).to(wide))
        log_a = -STRENGTH * r * F.softplus(self.decay.to(wide))  # B T R
        root = BoundedRoot.apply(-torch.expm1(2 * log_a))
        first = torch.arange(x.shape[1], device=x.device) + state.length == 0
        root = torch.where(first.unsqueeze(-1), 1.0, root)
        h, last = ops.diagonal_scan((i * u).to(wide) * root, log_a, initial_state=state.h)
        y = self.o(F.gelu(self.y(x), approximate="tanh") * h.to(x.dtype))
        return y, RGLRUState(tail, last, state.length + x.shape[1])


class BoundedRoot(torch.autograd.Function):
    """√x whose slope stays below `STEEPEST`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient / (4 * x).clamp(min=STEEPEST**-2).sqrt()


def _by_block(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A block-diagonal map of u, B T R, by weight, H R/H R/H."""
    heads = weight.shape[0]
    blocks = u.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(0, 1)  # H BT R/H
    return (blocks @ weight).transpose(0, 1).add(bias).reshape(u.shape)

"""Convolutions along the sequence."""

from __future__ import annotations

from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import dispatch


def short_convolution(
    x: Tensor,  # B T D
    weight: Tensor,  # D W
    bias: Tensor | None = None,  # D
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,  # B W-1 D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution: y_t = act(Σ_w weight[:, w] · x_{t-W+1+w} + bias).

    Args:
        activation: None or "silu".

    Returns:
        y: B T D; tail: the last W - 1 inputs, B W-1 D, the state to go on from.
    """
    return dispatch("short_convolution", x, weight, bias, activation, initial_state, cu_seqlens)


def short_convolution_cost(width: int, taps: int) -> Cost:
    """2WD FLOPs a token."""
    flops = 2.0 * width * taps
    return Cost.work(prefill=lambda _: flops, decode=lambda _: flops)

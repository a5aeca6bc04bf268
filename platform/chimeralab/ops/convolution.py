"""Convolutions along the sequence."""

from __future__ import annotations

import math

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


DIRECT = 16
"""Up to so many tokens a long convolution is a product with a Toeplitz matrix: quick, and exactly causal."""


def long_convolution(
    x: Tensor,  # B T D
    kernel: Tensor,  # D L
    skip: Tensor | None = None,  # D
    gate: Tensor | None = None,  # B T D
) -> Tensor:
    """Causal depthwise convolution by a kernel of any length: y_t = gate_t ⊙ (Σ_l k_l x_{t-l} + skip ⊙ x_t).

    Taps beyond T are not read. By FFT, what a later token changes in an earlier output is rounding: about 1e-7 of
    the largest output in float32, 1e-3 in the Triton tier, which takes bfloat16 alone.
    Source: S4 (arXiv 2111.00396) for the FFT; the gate as in Hyena (arXiv 2302.10866).

    Returns:
        B T D, in the dtype of `x`; transforms run in float32 or better, in the Triton tier in scaled float16.
    """
    return dispatch("long_convolution", x, kernel, skip, gate)


def transform_length(T: int, taps: int) -> int:
    """Points of the FFT in which T tokens and a kernel do not wrap around: the next 4, 5 or 6 times a power of two."""
    needed = max(T + min(T, taps) - 1, 4)
    power = 1 << (needed.bit_length() - 3)
    return next(m * power for m in (4, 5, 6, 8) if m * power >= needed)


def long_convolution_cost(width: int, taps: int | None = None, *, sequences: int = 1) -> Cost:
    """By FFT of n points: 2.5 n log₂ n for each channel of the input, of the kernel and back.

    Up to `DIRECT` tokens, 2T² a channel. A token that is decoded reads back over all taps.

    Args:
        taps: of the kernel; None: as many as there are tokens.
        sequences: how many share the kernel, and count as one of the batch.
    """

    def prefill(T: int) -> float:
        if T <= DIRECT:
            return 2.0 * width * sequences * T
        n = transform_length(T, taps or T)
        return 2.5 * width * (2 * sequences + 1) * n * math.log2(n) / T

    return Cost.work(prefill=prefill, decode=lambda L: 2.0 * width * sequences * min(L, taps or L))

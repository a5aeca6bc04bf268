"""Diagonal scans and selective state spaces: a state that each channel keeps for itself."""

from __future__ import annotations

from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import dispatch


def diagonal_scan(
    x: Tensor,  # B T D
    log_decay: Tensor,  # D | B T D
    *,
    initial_state: Tensor | None = None,  # B D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_decay_t) ⊙ h_{t-1} + x_t.

    A complex decay is log radius + i · angle; x is complex with it.
    Source: parallel scans of linear recurrences (arXiv 1709.04057).

    Returns:
        h: B T D in the dtype of `x`; final state: B D in float32 (complex64) or better.
    """
    return dispatch("diagonal_scan", x, log_decay, initial_state, cu_seqlens)


def diagonal_scan_cost(width: int, *, complex_valued: bool = False) -> Cost:
    """A multiply and an add a channel and token; four times as much in complex numbers."""
    flops = (8.0 if complex_valued else 2.0) * width
    return Cost.work(prefill=lambda _: flops, decode=lambda _: flops)


def selective_scan(
    u: Tensor,  # B T D
    delta: Tensor,  # B T D
    A: Tensor,  # D N
    B: Tensor,  # B T N
    C: Tensor,  # B T N
    skip: Tensor | None = None,  # D
    z: Tensor | None = None,  # B T D
    *,
    initial_state: Tensor | None = None,  # B D N
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t u_t) B_tᵀ,  y_t = (h_t C_t + skip ⊙ u_t) ⊙ silu(z_t).

    Δ is positive (softplus is the caller's), A negative.
    Source: Mamba (arXiv 2312.00752), algorithm 2.

    Returns:
        y: B T D in the dtype of `u`; final state: B D N in float32 or better.
    """
    return dispatch("selective_scan", u, delta, A, B, C, skip, z, initial_state, cu_seqlens)


def selective_scan_cost(width: int, state: int) -> Cost:
    """A multiply and an add a state and token to go on, and as much to read it: 4DN."""
    flops = 4.0 * width * state
    return Cost.work(prefill=lambda _: flops, decode=lambda _: flops)

"""What works within a token: norms, positions, gates, the loss."""

from __future__ import annotations

from torch import Tensor

from chimeralab.ops.table import dispatch


def rms_norm(x: Tensor, weight: Tensor | None, eps: float = 1e-6, *, gate: Tensor | None = None) -> Tensor:
    """x / √(mean x² + eps) · weight over the last dimension; with `gate`, of x · silu(gate) (Mamba-2's order)."""
    return dispatch("rms_norm", x, weight, eps, gate)


def add_rms_norm(x: Tensor, other: Tensor, weight: Tensor | None, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """rms_norm of x + other, and x + other: a branch joins the residual stream, and the next one reads it."""
    return dispatch("add_rms_norm", x, other, weight, eps)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves paired (Llama's layout). x: B T H K; cos, sin: T K/2 or B T K/2."""
    return dispatch("rotary", x, cos, sin)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    return dispatch("swiglu", gate, up)


def linear_cross_entropy(
    h: Tensor,  # M D
    weight: Tensor,  # V D
    target: Tensor,  # M
    *,
    reduction: str = "mean",
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """Cross-entropy of `h @ weightᵀ`, in nats, over the targets that are not `ignore_index`.

    `z_loss` times log² of the partition function is added. `reduction`: "mean" or "sum".
    """
    return dispatch("linear_cross_entropy", h, weight, target, reduction, z_loss, ignore_index)

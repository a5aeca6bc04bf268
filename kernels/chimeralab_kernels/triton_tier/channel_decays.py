"""Sums of logarithms of decay within a chunk, each an exact product with a matrix of ones: none is a difference."""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.halves import halves

LOG2_E = tl.constexpr(1.4426950408889634)


@jit
def sums(of, x, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Σ_r of_tr x_rk for `of` of zeros and ones: exact products, x as two bfloat16 numbers where SPLIT."""
    if SPLIT:
        ones = of.to(tl.bfloat16)
        high, low = halves(x)
        return tl.dot(ones, low, tl.dot(ones, high))
    return tl.dot(of.to(tl.float32), x, input_precision=PRECISION)


@jit
def decays(
    gs, FLAT: tl.constexpr, LIMIT: tl.constexpr, LEVELS: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr
):
    """Sums of g (C K): up to a token and with it, after it, since the middle of its block; log₂ of a block's size."""
    row = tl.arange(0, gs.shape[0])
    t, r = row[:, None], row[None, :]
    since = sums(r <= t, gs, SPLIT, PRECISION)
    if FLAT:
        total = tl.sum(gs, 0)[None, :]
        return since, total - since, since - 0.5 * total, LEVELS
    strongest = tl.maximum(tl.max(tl.max(-gs, 1), 0), 1e-6)
    size = tl.minimum(tl.maximum(tl.floor(tl.log2(2 * LIMIT / strongest)), 0), LEVELS).to(tl.int32)
    until = sums(r > t, gs, SPLIT, PRECISION)
    centred = sums(tl.where((t ^ r) >> size == 0, tl.where(r <= t, 0.5, -0.5), 0.0), gs, SPLIT, PRECISION)
    return since, until, centred, size


@jit
def from_boundary(t, r, level, BONUS: tl.constexpr):
    """C C, true where the decay of t since, or up to, the boundary of its level takes r's. A bonus: not its own."""
    found = ((t ^ r) >> level == 0) & ((r <= t) == ((t >> level) & 1 == 1))
    if BONUS:
        found &= r != t
    return found

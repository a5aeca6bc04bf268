"""Decays by channel within a chunk of the delta rule: of a token that reads, and of one that writes.

In a block of tokens through which no channel decays by more than two to the power of 2 · LIMIT, E is half the sum of g
up to a token and with it, less half of what comes after. What reads takes exp(E), what writes exp(−E): their products
are right wherever the reader stands after the writer.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import LOG2_E, sums
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import FLOOR


@jit
def load_decays(g, inside):
    """Log decays to base 2, and their sum."""
    gs = tl.load(g, mask=inside, other=0.0).to(tl.float32)
    gs = tl.where(gs < FLOOR, FLOOR, gs) * LOG2_E
    return gs, tl.sum(gs, 0)


@jit
def block_size(gs, LIMIT: tl.constexpr, LEVELS: tl.constexpr):
    """log₂ of the tokens of a block through which no channel decays by more than 2 to the power of 2 · LIMIT."""
    strongest = tl.maximum(tl.max(tl.max(-gs, 1), 0), 1e-6)
    return tl.minimum(tl.maximum(tl.floor(tl.log2(2 * LIMIT / strongest)), 0), LEVELS).to(tl.int32)


@jit
def token_factors(
    gs, size, FLAT: tl.constexpr, LIMIT: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """exp(E) and exp(−E). FLAT: the chunk is one block."""
    t, r = _tokens(gs)
    half = tl.where(r <= t, 0.5, -0.5)
    if FLAT:
        E = sums(half, gs, SPLIT, PRECISION)
    else:
        E = sums(tl.where((t ^ r) >> size == 0, half, 0.0), gs, SPLIT, PRECISION)
        E = tl.minimum(tl.maximum(E, -LIMIT), LIMIT)
    return tl.exp2(E), tl.exp2(-E)


@jit
def chunk_factors(gs, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """For the state: the decay since the chunk's start, and up to its end."""
    t, r = _tokens(gs)
    return tl.exp2(sums(r <= t, gs, SPLIT, PRECISION)), tl.exp2(sums(r > t, gs, SPLIT, PRECISION))


@jit
def boundary_factors(gs, level, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """For pairs in different halves of a block of the level: the decay since its middle, and up to it."""
    t, r = _tokens(gs)
    half = (t ^ r) >> level == 0
    return (
        tl.exp2(sums(half & (r <= t), gs, SPLIT, PRECISION)),
        tl.exp2(sums(half & (r > t), gs, SPLIT, PRECISION)),
    )


@jit
def _tokens(gs):
    token = tl.arange(0, gs.shape[0])
    return token[:, None], token[None, :]

"""What reads and what writes in a chunk of the delta rule, each as one stack of rows, and how they have decayed.

Readers are the queries above x, which reads what a token's writing depends on: a, or −k. Writers are b above k, or
β k alone. One product of the stacks gives every score of a chunk, and one with the scores' gradients all of theirs.
A row of token t meets the decays of tokens before its *reach*: t + 1, but t for a, which reads before its own decay.
"""

from __future__ import annotations

import triton
import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import LOG2_E, sums
from chimeralab_kernels.triton_tier.gla_scan import FLOOR


@triton.jit
def reader_rows(C: tl.constexpr, GENERAL: tl.constexpr):
    """Of each reader: whether it is a query, its token, its reach."""
    row = tl.arange(0, 2 * C)
    query = row < C
    t = row % C
    reach = t + 1
    if GENERAL:
        reach = t + tl.where(query, 1, 0)
    return query, t, reach


@triton.jit
def load_decays(g, inside):
    """Log decays to base 2, and their sum."""
    gs = tl.load(g, mask=inside, other=0.0).to(tl.float32)
    gs = tl.where(gs < FLOOR, FLOOR, gs) * LOG2_E
    return gs, tl.sum(gs, 0)


@triton.jit
def block_size(gs, LIMIT: tl.constexpr, LEVELS: tl.constexpr):
    """log₂ of the tokens of a block through which no channel decays by more than 2 to the power of 2 · LIMIT."""
    strongest = tl.maximum(tl.max(tl.max(-gs, 1), 0), 1e-6)
    return tl.minimum(tl.maximum(tl.floor(tl.log2(2 * LIMIT / strongest)), 0), LEVELS).to(tl.int32)


@triton.jit
def block_factors(
    gs, total, t, reach, size,
    WRITES: tl.constexpr, FLAT: tl.constexpr, LIMIT: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of rows that read: their decay since the middle of their block, and since the chunk's start; of rows that write:
    up to it, and up to the chunk's end. FLAT: the chunk is one block."""
    r = tl.arange(0, gs.shape[0])[None, :]
    met = r < reach[:, None]
    half = tl.where(met != WRITES, 0.5, -0.5)
    if FLAT:
        block = tl.exp2(sums(half, gs, SPLIT, PRECISION))
        return block, block * tl.exp2(0.5 * total)[None, :]
    chunk = tl.exp2(sums(met != WRITES, gs, SPLIT, PRECISION))
    centred = sums(tl.where((t[:, None] ^ r) >> size == 0, half, 0.0), gs, SPLIT, PRECISION)
    return tl.exp2(tl.minimum(tl.maximum(centred, -LIMIT), LIMIT)), chunk


@triton.jit
def level_factors(gs, t, reach, level, WRITES: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Of rows that read, in the second half of a block of the level: their decay since its middle; of rows that write,
    in the first half: up to it."""
    r = tl.arange(0, gs.shape[0])[None, :]
    half = (t[:, None] ^ r) >> level == 0
    return tl.exp2(sums(half & ((r < reach[:, None]) != WRITES), gs, SPLIT, PRECISION))

"""What reads and what writes in a chunk of the general delta rule, each as one stack of rows, and their decays.

Readers are the queries above a, which reads what a token's writing depends on. Writers are b above k. One product of
the stacks gives every score of a chunk, and one with the scores' gradients all of theirs.
A row of token t meets the decays of tokens before its *reach*: t + 1, but t for a, which reads before its own decay.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import sums
from chimeralab_kernels.triton_tier.first_call import jit


@jit
def reader_rows(C: tl.constexpr):
    """Of each reader: whether it is a query, its token, its reach."""
    row = tl.arange(0, 2 * C)
    query = row < C
    t = row % C
    return query, t, t + tl.where(query, 1, 0)


@jit
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


@jit
def level_factors(gs, t, reach, level, WRITES: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Of rows that read, in the second half of a block of the level: their decay since its middle; of rows that write,
    in the first half: up to it."""
    r = tl.arange(0, gs.shape[0])[None, :]
    half = (t[:, None] ^ r) >> level == 0
    return tl.exp2(sums(half & ((r < reach[:, None]) != WRITES), gs, SPLIT, PRECISION))

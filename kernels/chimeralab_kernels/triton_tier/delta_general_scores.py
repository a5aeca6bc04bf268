"""What the delta rule's scan needs of each chunk in the general form, with a and b.

Scores are R_ti W_si exp(Σ g between them) summed over channels i, R the readers and W the writers. A chunk through
which no channel decays by more than two to the power of 2 · LIMIT is *flat*: one product of R exp(E) and W exp(−E), E
the sum of g since the chunk's middle, is right wherever t ≥ s. Others are *steep*, and taken by a second launch: blocks
of tokens as large as the decay allows in the same way, and pairs in different blocks where they first fall into
different halves, through the boundary between them, without a positive exponent.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.delta_decays import block_size, load_decays
from chimeralab_kernels.triton_tier.delta_stacks import block_factors, level_factors, reader_rows
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import place


@jit
def delta_general_scores(  # noqa: PLR0915
    q, k,  # B T G K
    a, b, g,  # B T H K
    overlaps,  # B·H chunks C C: A, in float32
    feed, from_e, from_v,  # B·H chunks C C: M, P, N
    x, w, reads, adds,  # B T H K: what reads the state, writes e, is read for y, writes v
    totals,  # B·H chunks K: the decay of a chunk
    steep,  # B·H chunks
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h, g_b, g_t, g_h, g_k,  # strides
    T, H, chunks, group_heads, scale,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr,  # C = 2 ** LEVELS
    LIMIT: tl.constexpr,
    FLAT: tl.constexpr,  # every chunk as one block, and `steep` written; otherwise those that are steep again
    OVERLAPS: tl.constexpr,  # write A
    PACKED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a chunk of one head."""
    at = tl.program_id(0).to(tl.int64)
    if not FLAT:  # noqa: SIM102 - `and` would load either way
        if tl.load(steep + at) == 0:
            return
    head = at // chunks
    n, h = head // H, head % H
    first, stop = place(table, at % chunks, T, C, PACKED)
    first = first.to(tl.int64)
    query, t, reach = reader_rows(C)
    live = first + t < stop
    token = tl.arange(0, C)
    here = (first + t)[:, None]
    q += n * q_b + h // group_heads * q_h + here * q_t
    k += n * k_b + h // group_heads * k_h
    g += n * g_b + h * g_h + (first + token)[:, None] * g_t
    own = ((n * T + first + t) * H + h)[:, None] * K
    lower = tl.arange(0, 2 * C)[:, None] >= C
    reader = tl.where(lower, a + n * a_b + h * a_h + here * a_t, q)
    writer = tl.where(lower, k + here * k_t, b + n * b_b + h * b_h + here * b_t)
    wrote = tl.where(lower, adds, w) + own
    read = tl.where(lower, x, reads) + own
    sign = tl.where(query, scale, 1.0)[:, None]

    low = x.dtype.element_ty
    A = tl.zeros([2 * C, 2 * C], tl.float32)
    strongest = 0.0
    for begin in range(0, K, BK):
        column = begin + tl.arange(0, BK)
        in_k = column < K
        R = tl.load(reader + column[None, :], mask=live[:, None] & in_k[None, :], other=0.0)
        W = tl.load(writer + column[None, :], mask=live[:, None] & in_k[None, :], other=0.0)
        R = R.to(tl.float32) * sign
        W = W.to(tl.float32)
        gs, total = load_decays(g + column[None, :] * g_k, (first + token < stop)[:, None] & in_k[None, :])
        size = LEVELS if FLAT else block_size(gs, LIMIT, LEVELS)
        tl.store(totals + at * K + column, tl.exp2(total), mask=in_k)
        strongest = tl.maximum(strongest, tl.max(-total, 0))
        r_block, r_chunk = block_factors(gs, total, t, reach, size, False, FLAT, LIMIT, SPLIT, PRECISION)
        w_block, w_chunk = block_factors(gs, total, t, t + 1, size, True, FLAT, LIMIT, SPLIT, PRECISION)
        tl.store(read + column[None, :], (R * r_chunk).to(low), mask=live[:, None] & in_k[None, :])
        tl.store(wrote + column[None, :], (W * w_chunk).to(low), mask=live[:, None] & in_k[None, :])
        pairs = tl.dot((R * r_block).to(low), tl.trans((W * w_block).to(low)), input_precision=PRECISION)
        if FLAT:
            A += pairs
        else:
            apart = t[:, None] ^ t[None, :]
            A += tl.where(apart >> size == 0, pairs, 0.0)
            for level in range(size, LEVELS):
                faded_r = (R * level_factors(gs, t, reach, level, False, SPLIT, PRECISION)).to(low)
                faded_w = (W * level_factors(gs, t, t + 1, level, True, SPLIT, PRECISION)).to(low)
                pairs = tl.dot(faded_r, tl.trans(faded_w), input_precision=PRECISION)
                A += tl.where(apart >> level == 1, pairs, 0.0)

    A = tl.where(t[None, :] < (t + tl.where(query, 1, 0))[:, None], A, 0.0)
    cell = at * C * C + t[:, None] * C + t[None, :]
    left = (tl.arange(0, 2 * C) < C)[None, :]
    to = tl.where(query[:, None], tl.where(left, from_e, from_v), feed)
    tl.store(to + cell, A.to(low), mask=query[:, None] | ~left)
    if OVERLAPS:
        tl.store(overlaps + cell, -A, mask=~query[:, None] & left)
    if FLAT:
        tl.store(steep + at, (strongest > 2 * LIMIT).to(tl.int8))

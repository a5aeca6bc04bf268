"""What the delta rule's scan needs of each chunk when every key channel has its own decay.

Scores are R_ti W_si exp(Σ g between them) summed over channels i; R is what reads, q and −k, W what writes, β k. A
chunk through which no channel decays by more than two to the power of 2 · LIMIT is *flat*: one product of R exp(E) and
W exp(−E), E the sum of g since the chunk's middle, is right wherever t ≥ s. Others are *steep*, and taken by a second
launch: blocks of tokens as large as the decay allows in the same way, and pairs in different blocks where they first
fall into different halves, through the boundary between them, without a positive exponent.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.delta_decays import (
    block_size,
    boundary_factors,
    chunk_factors,
    load_decays,
    token_factors,
)
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import place


@jit
def delta_channel_scores(  # noqa: PLR0915
    q, k,  # B T G K
    g,  # B T H K
    beta,  # B T H
    overlaps,  # B·H chunks C C: A, in float32
    from_e,  # B·H chunks C C: P
    x, w, reads,  # B T H K: what reads the state, writes e, is read for y
    totals,  # B·H chunks K: the decay of a chunk
    steep,  # B·H chunks
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, g_b, g_t, g_h, g_k, beta_b, beta_t, beta_h,  # strides
    T, H, chunks, group_heads, scale,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr,  # C = 2 ** LEVELS
    LIMIT: tl.constexpr,
    FLAT: tl.constexpr,  # every chunk as one block, and `steep` written; otherwise those that are steep again
    OVERLAPS: tl.constexpr,  # write A
    BETAS: tl.constexpr, PACKED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a chunk of one head."""
    at = tl.program_id(0).to(tl.int64)
    if not FLAT:  # noqa: SIM102 - `and` would load either way
        if tl.load(steep + at) == 0:
            return
    head = at // chunks
    n, h = head // H, head % H
    row = tl.arange(0, C)
    first, stop = place(table, at % chunks, T, C, PACKED)
    first = first.to(tl.int64)
    here = (first + row)[:, None]
    live = first + row < stop
    q += n * q_b + h // group_heads * q_h + here * q_t
    k += n * k_b + h // group_heads * k_h + here * k_t
    g += n * g_b + h * g_h + here * g_t
    own = ((n * T + first + row) * H + h)[:, None] * K
    if BETAS:
        weight = tl.load(beta + n * beta_b + h * beta_h + (first + row) * beta_t, mask=live, other=0.0).to(tl.float32)

    low = x.dtype.element_ty
    A = tl.zeros([C, C], tl.float32)
    P = tl.zeros([C, C], tl.float32)
    strongest = 0.0
    for begin in range(0, K, BK):
        column = begin + tl.arange(0, BK)
        in_k = column < K
        inside = live[:, None] & in_k[None, :]
        gs, total = load_decays(g + column[None, :] * g_k, inside)
        size = LEVELS if FLAT else block_size(gs, LIMIT, LEVELS)
        tl.store(totals + at * K + column, tl.exp2(total), mask=in_k)
        strongest = tl.maximum(strongest, tl.max(-total, 0))
        since, until = token_factors(gs, size, FLAT, LIMIT, SPLIT, PRECISION)
        if FLAT:  # exp(G) = exp(E) exp(total / 2)
            half = tl.exp2(0.5 * total)[None, :]
            from_start, to_end = since * half, until * half
        else:
            from_start, to_end = chunk_factors(gs, SPLIT, PRECISION)

        keys = tl.load(k + column[None, :], mask=inside, other=0.0).to(tl.float32)
        queries = tl.load(q + column[None, :], mask=inside, other=0.0).to(tl.float32) * scale
        writers = keys * weight[:, None] if BETAS else keys
        at_own = own + column[None, :]
        tl.store(reads + at_own, (queries * from_start).to(low), mask=inside)
        tl.store(x + at_own, (-keys * from_start).to(low), mask=inside)
        tl.store(w + at_own, (writers * to_end).to(low), mask=inside)
        query, reader, writer = (queries * since).to(low), (-keys * since).to(low), (writers * until).to(low)
        apart = row[:, None] ^ row[None, :]
        P = _add(P, query, writer, apart >> size == 0, FLAT, PRECISION)
        if OVERLAPS:
            A = _add(A, reader, writer, apart >> size == 0, FLAT, PRECISION)
        if not FLAT:
            for level in range(size, LEVELS):
                since, until = boundary_factors(gs, level, SPLIT, PRECISION)
                query, reader = (queries * since).to(low), (-keys * since).to(low)
                writer = (writers * until).to(low)
                P = _add(P, query, writer, apart >> level == 1, False, PRECISION)
                if OVERLAPS:
                    A = _add(A, reader, writer, apart >> level == 1, False, PRECISION)

    cell = at * C * C + row[:, None] * C + row[None, :]
    tl.store(from_e + cell, tl.where(row[:, None] >= row[None, :], P, 0.0).to(low))
    if OVERLAPS:
        tl.store(overlaps + cell, tl.where(row[:, None] > row[None, :], -A, 0.0))
    if FLAT:
        tl.store(steep + at, (strongest > 2 * LIMIT).to(tl.int8))


@jit
def _add(scores, readers, writers, among, ALL: tl.constexpr, PRECISION: tl.constexpr):
    """With the scores of `among`; where ALL, of all."""
    if ALL:
        return tl.dot(readers, tl.trans(writers), scores, input_precision=PRECISION)
    return scores + tl.where(among, tl.dot(readers, tl.trans(writers), input_precision=PRECISION), 0.0)

"""Gradients of the delta rule's inputs when every key channel has its own decay, chunk by chunk.

As in `delta_gradients`. What reads are q and −k, dy and dr the gradients of what they read; what writes is β k. Scores
have the gradients dP = dy eᵀ and dA = dr eᵀ; through the states readers have dy S and dr S and the writer e D, S before
the chunk and D the gradient of the one after it. What a pair adds to the gradient of the decay where it is read and
takes away where it is written is the same product of rounded operands, and cancels.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import sums
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
def delta_channel_gradients(  # noqa: PLR0915
    q, k,  # B T G K
    g,  # B T H K
    beta,  # B T H
    dy,  # B T H V
    e, dr,  # B T H V
    states, ends,  # B·H chunks V K: the state before each chunk; the gradient of the one after it
    steep,  # B·H chunks
    dq, dk, dg,  # B T H K
    dbeta,  # blocks B T H: the part of each block of K
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, g_b, g_t, g_h, g_k, beta_b, beta_t, beta_h,  # strides
    y_b, y_t, y_h,
    B, T, H, chunks, group_heads, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr,  # C = 2 ** LEVELS
    LIMIT: tl.constexpr,
    FLAT: tl.constexpr,  # chunks that are not steep; otherwise those that are
    BETAS: tl.constexpr, PACKED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a block of K of one chunk of one head."""
    blocks: tl.constexpr = (K + BK - 1) // BK
    at = tl.program_id(0).to(tl.int64) // blocks
    block = tl.program_id(0) % blocks
    if (tl.load(steep + at) == 0) != FLAT:
        return
    head = at // chunks
    n, h = head // H, head % H
    row = tl.arange(0, C)
    first, stop = place(table, at % chunks, T, C, PACKED)
    first = first.to(tl.int64)
    here = (first + row)[:, None]
    live = first + row < stop
    mine = (n * T + first + row) * H + h
    column = block * BK + tl.arange(0, BK)
    in_k = column < K
    inside = live[:, None] & in_k[None, :]
    at_own = mine[:, None] * K + column[None, :]
    low = dr.dtype.element_ty
    k += n * k_b + h // group_heads * k_h + here * k_t + column[None, :]
    dy += n * y_b + h * y_h + here * y_t
    e += mine[:, None] * V
    dr += mine[:, None] * V

    # Through the states, and the scores' gradients.
    dP = tl.zeros([C, C], tl.float32)
    dA = tl.zeros([C, C], tl.float32)
    d_query = tl.zeros([C, BK], tl.float32)
    d_reader = tl.zeros([C, BK], tl.float32)
    d_writer = tl.zeros([C, BK], tl.float32)
    left = tl.zeros([BK], tl.float32)
    for start in range(0, V, BV):
        column_v = start + tl.arange(0, BV)
        rows = live[:, None] & (column_v < V)[None, :]
        tile = at * K * V + column_v[:, None] * K + column[None, :]
        in_tile = (column_v < V)[:, None] & in_k[None, :]
        D = tl.load(ends + tile, mask=in_tile, other=0.0)
        S = tl.load(states + tile, mask=in_tile, other=0.0)
        left += tl.sum(S.to(tl.float32) * D.to(tl.float32), 0)
        written = tl.load(e + column_v[None, :], mask=rows, other=0.0)
        d_writer = tl.dot(written, D, d_writer, input_precision=PRECISION)
        out = tl.load(dy + column_v[None, :], mask=rows, other=0.0)
        solved = tl.load(dr + column_v[None, :], mask=rows, other=0.0)
        d_query = tl.dot(out, S, d_query, input_precision=PRECISION)
        d_reader = tl.dot(solved, S, d_reader, input_precision=PRECISION)
        dP = tl.dot(out, tl.trans(written), dP, input_precision=PRECISION)
        dA = tl.dot(solved, tl.trans(written), dA, input_precision=PRECISION)
    dP = tl.where(row[:, None] >= row[None, :], dP, 0.0).to(low)
    dA = tl.where(row[:, None] > row[None, :], dA, 0.0).to(low)

    g += n * g_b + h * g_h + here * g_t + column[None, :] * g_k
    gs, total = load_decays(g, inside)
    left *= tl.exp2(total)
    size = LEVELS if FLAT else block_size(gs, LIMIT, LEVELS)
    since, until = token_factors(gs, size, FLAT, LIMIT, SPLIT, PRECISION)
    keys = tl.load(k, mask=inside, other=0.0).to(tl.float32)
    writers = keys
    if BETAS:
        weight = tl.load(beta + n * beta_b + h * beta_h + (first + row) * beta_t, mask=live, other=0.0).to(tl.float32)
        writers *= weight[:, None]
    q += n * q_b + h // group_heads * q_h + here * q_t + column[None, :]
    if FLAT:  # exp(G) = exp(E) exp(total / 2): states and pairs share their factors
        half = tl.exp2(0.5 * total)[None, :]
        writer = (writers * until).to(low)
        d_writer *= half
        left += tl.sum(writer.to(tl.float32) * d_writer, 0)
        reader = (-keys * since).to(low)
        d_reader = tl.dot(dA, writer, d_reader * half, input_precision=PRECISION)
        d_writer = tl.dot(tl.trans(dA), reader, d_writer, input_precision=PRECISION)
        moved = reader.to(tl.float32) * d_reader
        d_reader *= since
        queries = tl.load(q, mask=inside, other=0.0).to(tl.float32) * scale
        query = (queries * since).to(low)
        d_query = tl.dot(dP, writer, d_query * half, input_precision=PRECISION)
        d_writer = tl.dot(tl.trans(dP), query, d_writer, input_precision=PRECISION)
        moved += query.to(tl.float32) * d_query - writer.to(tl.float32) * d_writer
        d_query *= since
        d_writer *= until
    else:
        queries = tl.load(q, mask=inside, other=0.0).to(tl.float32) * scale
        from_start, to_end = chunk_factors(gs, SPLIT, PRECISION)
        d_query *= from_start
        d_reader *= from_start
        d_writer *= to_end
        left += tl.sum(writers * d_writer, 0)
        moved = queries * d_query - keys * d_reader - writers * d_writer
        apart = row[:, None] ^ row[None, :]
        for level in range(size - 1, LEVELS):
            among = apart >> size == 0
            if level >= size:
                since, until = boundary_factors(gs, level, SPLIT, PRECISION)
                among = apart >> level == 1
            writer, reader, query = (writers * until).to(low), (-keys * since).to(low), (queries * since).to(low)
            here_A, here_P = tl.where(among, dA, 0.0).to(low), tl.where(among, dP, 0.0).to(low)
            for_reader = tl.dot(here_A, writer, input_precision=PRECISION)
            for_query = tl.dot(here_P, writer, input_precision=PRECISION)
            for_writer = tl.dot(tl.trans(here_A), reader, input_precision=PRECISION)
            for_writer = tl.dot(tl.trans(here_P), query, for_writer, input_precision=PRECISION)
            moved += reader.to(tl.float32) * for_reader
            moved += query.to(tl.float32) * for_query - writer.to(tl.float32) * for_writer
            d_reader += for_reader * since
            d_query += for_query * since
            d_writer += for_writer * until

    tl.store(dq + at_own, (d_query * scale).to(dq.dtype.element_ty), mask=inside)
    d_decay = sums(row[:, None] <= row[None, :], moved, SPLIT, PRECISION) + left[None, :]
    if BETAS:
        tl.store(dbeta + block * B * T * H + mine, tl.sum(keys * d_writer, 1), mask=live)
        d_writer *= weight[:, None]
    tl.store(dg + at_own, d_decay.to(dg.dtype.element_ty), mask=inside)
    tl.store(dk + at_own, (d_writer - d_reader).to(dk.dtype.element_ty), mask=inside)

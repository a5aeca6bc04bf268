"""Gradients of the delta rule's inputs, chunk by chunk, once the states and their gradients are known.

With S the state before a chunk, D the gradient of the one after it, e what was written and r the right-hand side of
its triangular system,

    dP = dy eᵀ    dA = −dr eᵀ    through S: dq = dy Sᵀ, dx = −dr Sᵀ    through D: dw = e Dᵀ

The system's inverse needs no gradient of its own: dA is exact. Each log decay's gradient is summed within its chunk,
as for gated linear attention.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import FLOOR, place
from chimeralab_kernels.triton_tier.halves import halves


@jit
def delta_gradients(  # noqa: PLR0915
    q, k,  # B T G K
    e, dr,  # B T H V
    dy,  # B T H V
    g, beta,  # B T H
    overlaps, scores,  # B·H chunks C C: A, P
    states, ends,  # B·H chunks V K: the state before each chunk; the gradient of the one after it
    dq, dk,  # B T H K
    dg, dbeta,  # B T H
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, y_b, y_t, y_h, g_b, g_t, g_h, beta_b, beta_t, beta_h,  # strides
    T, H, chunks, group_heads, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    DECAYS: tl.constexpr, BETAS: tl.constexpr, PACKED: tl.constexpr,
    HALVES: tl.constexpr,  # dP and dA as two bfloat16 numbers each
    PRECISION: tl.constexpr,
):  # fmt: skip
    """With one decay, or none, a token and head. One program: one chunk of one head; BV ≥ V."""
    at = tl.program_id(0).to(tl.int64)
    head = at // chunks
    b, h = head // H, head % H
    row = tl.arange(0, C)
    first, stop = place(table, at % chunks, T, C, PACKED)
    first = first.to(tl.int64)
    t = first + row
    live = t < stop
    column_v = tl.arange(0, BV)
    in_v = column_v < V
    rows_v = live[:, None] & in_v[None, :]
    mine = (b * T * H + h).to(tl.int64)
    own_v = (mine + t[:, None] * H) * V + column_v[None, :]
    written = tl.load(e + own_v, mask=rows_v, other=0.0)
    solved = tl.load(dr + own_v, mask=rows_v, other=0.0)
    out = tl.load(dy + b * y_b + h * y_h + t[:, None] * y_t + column_v[None, :], mask=rows_v, other=0.0)
    d_scores = tl.dot(out, tl.trans(written), input_precision=PRECISION)
    d_overlaps = -tl.dot(solved, tl.trans(written), input_precision=PRECISION)
    moved = tl.zeros([C], tl.float32)
    if DECAYS:
        # What a pair adds to the decay's gradient where it is read it takes away where it is written.
        cell = at * C * C + row[:, None] * C + row[None, :]
        pairs = d_scores * tl.load(scores + cell) + d_overlaps * tl.load(overlaps + cell)
        pairs = tl.where(row[:, None] > row[None, :], pairs, 0.0)
        moved = tl.sum(pairs, 1) - tl.sum(pairs, 0)
    from_start = tl.full([C], 1.0, tl.float32)
    to_end = from_start
    weight = from_start
    kept = 1.0
    if DECAYS:
        decay = tl.load(g + b * g_b + h * g_h + t * g_t, mask=live, other=0.0).to(tl.float32)
        decay = tl.where(decay < FLOOR, FLOOR, decay)
        G = tl.cumsum(decay, 0)
        total = tl.sum(decay, 0)
        between = tl.exp(tl.where(row[:, None] >= row[None, :], G[:, None] - G[None, :], 0.0))
        d_scores *= between * scale
        d_overlaps *= between
        from_start = tl.exp(G)
        to_end = tl.exp(total - G)
        kept = tl.exp(total)
    else:
        d_scores *= scale
    if BETAS:
        weight = tl.load(beta + b * beta_b + h * beta_h + t * beta_t, mask=live, other=0.0).to(tl.float32)
    d_scores = tl.where(row[:, None] >= row[None, :], d_scores, 0.0)
    d_overlaps = tl.where(row[:, None] > row[None, :], d_overlaps, 0.0)
    if HALVES:
        d_scores, low_scores = halves(d_scores)
        d_overlaps, low_overlaps = halves(d_overlaps)
    else:
        d_scores = d_scores.to(written.dtype)
        d_overlaps = d_overlaps.to(written.dtype)

    d_weight = tl.zeros([C], tl.float32)
    whole = 0.0
    for begin in range(0, K, BK):
        column = begin + tl.arange(0, BK)
        in_k = column < K
        rows_k = live[:, None] & in_k[None, :]
        tile = at * K * V + column_v[:, None] * K + column[None, :]
        in_tile = in_v[:, None] & in_k[None, :]
        keys = tl.load(
            k + b * k_b + h // group_heads * k_h + t[:, None] * k_t + column[None, :], mask=rows_k, other=0.0
        )
        queries = tl.load(
            q + b * q_b + h // group_heads * q_h + t[:, None] * q_t + column[None, :], mask=rows_k, other=0.0
        )
        before = tl.load(states + tile, mask=in_tile, other=0.0)
        after = tl.load(ends + tile, mask=in_tile, other=0.0)
        writers = (keys * weight[:, None]).to(keys.dtype) if BETAS else keys

        d_queries = tl.dot(out, before, input_precision=PRECISION) * (scale * from_start)[:, None]
        d_readers = tl.dot(solved, before, input_precision=PRECISION) * -from_start[:, None]
        d_writers = tl.dot(written, after, input_precision=PRECISION) * to_end[:, None]
        if DECAYS:
            writes = tl.sum(writers * d_writers, 1)
            moved += tl.sum(queries * d_queries + keys * d_readers, 1) - writes
            whole += tl.sum(writes, 0)
            whole += tl.sum(tl.sum(before.to(tl.float32) * after.to(tl.float32), 1), 0) * kept
        d_queries = tl.dot(d_scores, writers, d_queries, input_precision=PRECISION)
        if HALVES:
            d_queries = tl.dot(low_scores, writers, d_queries)
        own_k = (mine + t[:, None] * H) * K + column[None, :]
        tl.store(dq + own_k, d_queries.to(dq.dtype.element_ty), mask=rows_k)
        d_readers = tl.dot(d_overlaps, writers, d_readers, input_precision=PRECISION)
        d_writers = tl.dot(tl.trans(d_scores), queries, d_writers, input_precision=PRECISION)
        d_writers = tl.dot(tl.trans(d_overlaps), keys, d_writers, input_precision=PRECISION)
        if HALVES:
            d_readers = tl.dot(low_overlaps, writers, d_readers)
            d_writers = tl.dot(tl.trans(low_scores), queries, d_writers)
            d_writers = tl.dot(tl.trans(low_overlaps), keys, d_writers)
        d_weight += tl.sum(keys * d_writers, 1)
        d_keys = d_readers + d_writers * weight[:, None]
        tl.store(dk + own_k, d_keys.to(dk.dtype.element_ty), mask=rows_k)
    own = mine + t * H
    if BETAS:
        tl.store(dbeta + own, d_weight.to(dbeta.dtype.element_ty), mask=live)
    if DECAYS:
        after_all = tl.sum(moved, 0) + whole
        tl.store(dg + own, (after_all - tl.cumsum(moved, 0) + moved).to(dg.dtype.element_ty), mask=live)

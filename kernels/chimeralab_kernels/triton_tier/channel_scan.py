"""Gated linear attention with a decay by channel: the scan over chunks, as one Triton kernel.

With queries decayed from the chunk's start, keys decayed to its end and the scores A of `channel_within`,

    y  = queries S + A v            S' = diag(kept) S + keysᵀ v
    dv = keys D + Aᵀ dy             D' = diag(kept) D + queriesᵀ dy          (backwards, D the gradient of the state)
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import place


@jit
def channel_scan(  # noqa: PLR0915
    q,  # B·H chunks C K: what reads the state
    k,  # B·H chunks C K: where it is written
    v,  # B T H V: what is written
    scores,  # B·H chunks C C
    kept,  # B·H chunks K, logarithms
    y,  # B T H V
    start,  # B·H segments K V: the state that each segment meets
    final,  # B·H K V: the last state; EACH: B·H segments K V, the last one of each segment
    left,  # B·H segments K: logarithm of what a segment leaves of the state that it meets
    states,  # B·H chunks K V: the state that each chunk meets
    table,  # chunks 2, and
    offsets,  # segments + 1: packed sequences' chunks, and the first of each sequence
    v_b, v_t, v_h, y_b, y_t, y_h,  # strides
    T, H, chunks, segments, chunks_a_segment,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACKWARDS: tl.constexpr,
    STARTS: tl.constexpr,  # from `start`, not from zero
    OUTPUT: tl.constexpr,  # write y; needs BK ≥ K
    STATES: tl.constexpr,  # write `states`
    ENDS: tl.constexpr,  # write `final`
    EACH: tl.constexpr,
    LEFT: tl.constexpr,  # write `left`
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a K × V tile of one head's state through one segment."""
    program = tl.program_id(0)
    blocks_v: tl.constexpr = (V + BV - 1) // BV
    blocks_k: tl.constexpr = (K + BK - 1) // BK
    block_v = program % blocks_v
    block_k = program // blocks_v % blocks_k
    program = program // (blocks_v * blocks_k)
    segment = program % segments
    head = (program // segments).to(tl.int64)  # of the batch
    b, h = head // H, head % H
    first = segment * chunks_a_segment
    last = min(first + chunks_a_segment, chunks)
    if PACKED:
        first = tl.load(offsets + segment)
        last = tl.load(offsets + segment + 1)

    row = tl.arange(0, C)
    column_k = block_k * BK + tl.arange(0, BK)
    column_v = block_v * BV + tl.arange(0, BV)
    in_k, in_v = column_k < K, column_v < V
    tile = column_k[:, None] * V + column_v[None, :]
    in_tile = in_k[:, None] & in_v[None, :]
    here = row[:, None] * K + column_k[None, :]
    v += b * v_b + h * v_h + column_v[None, :]
    if OUTPUT:
        y += b * y_b + h * y_h + column_v[None, :]

    S = tl.zeros([BK, BV], tl.float32)
    if STARTS:
        S = tl.load(start + (head * segments + segment) * K * V + tile, mask=in_tile, other=0.0).to(tl.float32)
    total = tl.zeros([BK], tl.float32)
    for i in range(first, last):
        n = first + last - 1 - i if BACKWARDS else i
        chunk = head * chunks + n
        token, stop = place(table, n, T, C, PACKED)
        t = (token + row).to(tl.int64)[:, None]
        inside = (t < stop) & in_v[None, :]
        keys = tl.load(k + chunk * C * K + here, mask=in_k[None, :], other=0.0)
        values = tl.load(v + t * v_t, mask=inside, other=0.0)
        decay = tl.load(kept + chunk * K + column_k, mask=in_k, other=0.0)
        if STATES:
            tl.store(states + chunk * K * V + tile, S.to(states.dtype.element_ty), mask=in_tile)
        if OUTPUT:
            queries = tl.load(q + chunk * C * K + here, mask=in_k[None, :], other=0.0)
            A = tl.load(scores + chunk * C * C + row[:, None] * C + row[None, :])
            if BACKWARDS:
                A = tl.trans(A)
            out = tl.dot(queries, S.to(queries.dtype), input_precision=PRECISION)
            out = tl.dot(A, values, out, input_precision=PRECISION)
            tl.store(y + t * y_t, out.to(y.dtype.element_ty), mask=inside)
        S *= tl.exp(decay)[:, None]
        S = tl.dot(tl.trans(keys), values, S, input_precision=PRECISION)
        if LEFT:
            total += decay
    if ENDS:
        if EACH:
            tl.store(final + (head * segments + segment) * K * V + tile, S, mask=in_tile)
        elif (first == 0) if BACKWARDS else (last == chunks):
            tl.store(final + head * K * V + tile, S, mask=in_tile)
    if LEFT:
        tl.store(left + (head * segments + segment) * K + column_k, total, mask=in_k)

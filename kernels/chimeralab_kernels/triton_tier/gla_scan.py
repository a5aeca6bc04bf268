"""The scan that gated linear attention is made of, as one Triton kernel; docs/kernels.md has its equations.

The gradient of v is the same scan over other operands, S being the state and D its gradient:

    y  = scan(q, k, v)  with state S               dv = scan(k, q, dy), backwards, with state D

What both met at each chunk, laid down in memory, gives the other gradients (`gla_gradients`).

Rows of a chunk that lie past T are read as zeros, which change neither state nor output.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels import precision
from chimeralab_kernels.triton_tier.first_call import jit

FLOOR = tl.constexpr(precision.FLOOR)


@jit
def place(table, n, T, C: tl.constexpr, PACKED: tl.constexpr):
    """The first token of chunk n, and the end of its sequence."""
    first, stop = n * C, T
    if PACKED:
        first = tl.load(table + 2 * n)
        stop = tl.load(table + 2 * n + 1)
    return first, stop


@jit
def scan(  # noqa: PLR0915
    q,  # B T Hq K: what reads the state
    k,  # B T Hk K: where it is written
    v,  # B T Hv V: what is written
    g,  # B T H, logarithms
    y,  # B T H V
    start,  # B·H segments K V: the state that each segment meets
    final,  # B·H K V: the last state; without y, or packed, B·H segments K V, the last one of each segment
    kept,  # B·H segments: logarithm of what a segment leaves of the state that it meets
    states,  # B·H chunks K V: the state that each chunk meets
    table,  # chunks 2, and
    offsets,  # segments + 1: packed sequences' chunks, and the first of each sequence
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, g_b, g_t, g_h, y_b, y_t, y_h,  # strides
    T, H, chunks,
    q_heads, k_heads, v_heads,  # heads of the state that share one of q, k, v
    segments, chunks_a_segment, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACKWARDS: tl.constexpr,
    DECAYS: tl.constexpr,
    STARTS: tl.constexpr,  # from `start`, not from zero
    OUTPUT: tl.constexpr,  # write y; needs BK ≥ K
    STATES: tl.constexpr,  # write `states`
    ENDS: tl.constexpr,  # write `final`
    PACKED: tl.constexpr,  # a segment is a sequence
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
    k += b * k_b + h // k_heads * k_h + column_k[None, :]
    v += b * v_b + h // v_heads * v_h + column_v[None, :]
    if OUTPUT:
        q += b * q_b + h // q_heads * q_h + column_k[None, :]
        y += b * y_b + h * y_h + column_v[None, :]
    if DECAYS:
        g += b * g_b + h * g_h
    reads = row[:, None] <= row[None, :] if BACKWARDS else row[:, None] >= row[None, :]

    # The scale multiplies what is read. Backwards the state is met, and left, with the scale in it.
    S = tl.zeros([BK, BV], tl.float32)
    if STARTS:
        S = tl.load(start + (head * segments + segment) * K * V + tile, mask=in_tile, other=0.0).to(tl.float32)
        if BACKWARDS:
            S /= scale
    left = 0.0
    for i in range(first, last):
        n = first + last - 1 - i if BACKWARDS else i
        token, stop = place(table, n, T, C, PACKED)
        t = (token + row).to(tl.int64)
        live = t < stop
        rows_k, rows_v = live[:, None] & in_k[None, :], live[:, None] & in_v[None, :]
        keys = tl.load(k + t[:, None] * k_t, mask=rows_k, other=0.0)
        values = tl.load(v + t[:, None] * v_t, mask=rows_v, other=0.0)
        if STATES:
            tl.store(states + (head * chunks + n) * K * V + tile, S.to(states.dtype.element_ty), mask=in_tile)
        if DECAYS:
            decay = tl.load(g + t * g_t, mask=live, other=0.0).to(tl.float32)
            decay = tl.where(decay < FLOOR, FLOOR, decay)
            G = tl.cumsum(decay, 0)
            total = tl.sum(decay, 0)
            if BACKWARDS:
                G = total - G
        if OUTPUT:
            queries = tl.load(q + t[:, None] * q_t, mask=rows_k, other=0.0)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            out = tl.dot(queries, S.to(queries.dtype), input_precision=PRECISION)
            if DECAYS:
                scores *= tl.exp(tl.where(reads, G[:, None] - G[None, :], -float("inf"))) * scale
                out *= (tl.exp(G) * scale)[:, None]
            else:
                scores = tl.where(reads, scores * scale, 0.0)
                out *= scale
            out = tl.dot(scores.to(values.dtype), values, out, input_precision=PRECISION)
            tl.store(y + t[:, None] * y_t, out.to(y.dtype.element_ty), mask=rows_v)
        if DECAYS:
            values = (values * tl.exp(total - G)[:, None]).to(keys.dtype)
            S *= tl.exp(total)
            left += total
        S = tl.dot(tl.trans(keys), values, S, input_precision=PRECISION)
    if ENDS:
        if BACKWARDS:
            S *= scale
        end = head * segments + segment
        if PACKED or not OUTPUT:
            tl.store(final + end * K * V + tile, S, mask=in_tile)
        elif (first == 0) if BACKWARDS else (last == chunks):
            tl.store(final + head * K * V + tile, S, mask=in_tile)
        if not OUTPUT:
            tl.store(kept + end, left)


@jit
def join_segments(
    ends,  # B·H segments size: what each segment adds to the state; on return, the state that it meets
    kept,  # B·H segments size / SHARED: logarithm of what each leaves of the state that it meets
    initial,  # B·H size
    segments,
    SIZE: tl.constexpr, SHARED: tl.constexpr, BLOCK: tl.constexpr, INITIAL: tl.constexpr, BACKWARDS: tl.constexpr,
):  # fmt: skip
    """The scan over segments, in place, first to last or last to first."""
    blocks: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK
    head = (tl.program_id(0) // blocks).to(tl.int64)
    element = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = element < SIZE
    state = tl.zeros([BLOCK], tl.float32)
    if INITIAL:
        state = tl.load(initial + head * SIZE + element, mask=inside, other=0.0).to(tl.float32)
    for i in range(segments):
        segment = segments - 1 - i if BACKWARDS else i
        here = head * segments + segment
        added = tl.load(ends + here * SIZE + element, mask=inside, other=0.0)
        tl.store(ends + here * SIZE + element, state, mask=inside)
        left = tl.load(kept + here * (SIZE // SHARED) + element // SHARED, mask=inside, other=0.0)
        state = state * tl.exp(left) + added

"""Triton kernels that scan gated linear attention forwards; the algorithm is in docs/kernels.md.

Rows of a chunk that lie past T are read as zeros, which change neither state nor output.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scan(  # noqa: PLR0915
    q,  # B T G K
    k,  # B T G K
    v,  # B T H V
    g,  # B T H, logarithms
    start,  # B·H (segments) K V: the state before each segment
    y,  # B T H V
    states,  # B·H chunks K V: the state before each chunk
    final,  # B·H K V, or the state after each segment: B·H segments K V
    kept,  # B·H segments: logarithm of what a segment leaves of the state before it
    q_b, q_t, q_g, k_b, k_t, k_g, v_b, v_t, v_h, g_b, g_t, g_h, y_b, y_t, y_h,  # strides
    T, H, heads_a_group, segments, chunks_a_segment, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    DECAYS: tl.constexpr,
    STARTS: tl.constexpr,  # 0: from zero; 1: from `start`
    OUTPUT: tl.constexpr,  # write y; needs BK ≥ K
    KEEP: tl.constexpr,  # write `states`
    ENDS: tl.constexpr,  # 0: nothing; 1: write `final` in the last segment; 2: in each, and `kept`
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
    head_of_batch = (program // segments).to(tl.int64)
    b, h = head_of_batch // H, head_of_batch % H
    group = h // heads_a_group
    chunks = tl.cdiv(T, C)
    first = segment * chunks_a_segment
    last = min(first + chunks_a_segment, chunks)

    row = tl.arange(0, C).to(tl.int64)
    column_k = block_k * BK + tl.arange(0, BK)
    column_v = block_v * BV + tl.arange(0, BV)
    in_k, in_v = column_k < K, column_v < V
    tile = column_k[:, None] * V + column_v[None, :]
    in_tile = in_k[:, None] & in_v[None, :]
    q += b * q_b + group * q_g + column_k[None, :]
    k += b * k_b + group * k_g + column_k[None, :]
    v += b * v_b + h * v_h + column_v[None, :]
    if OUTPUT:
        y += b * y_b + h * y_h + column_v[None, :]
    if DECAYS:
        g += b * g_b + h * g_h

    S = tl.zeros([BK, BV], tl.float32)
    if STARTS:
        S = tl.load(start + (head_of_batch * segments + segment) * K * V + tile, mask=in_tile, other=0.0)
        S = S.to(tl.float32)
    left = 0.0
    for n in range(first, last):
        t = n * C + row
        live = t < T
        if KEEP:
            before = states + (head_of_batch * chunks + n) * K * V + tile
            tl.store(before, S.to(states.dtype.element_ty), mask=in_tile)
        keys = tl.load(k + t[:, None] * k_t, mask=live[:, None] & in_k[None, :], other=0.0)
        values = tl.load(v + t[:, None] * v_t, mask=live[:, None] & in_v[None, :], other=0.0)
        if DECAYS:
            decay = tl.load(g + t * g_t, mask=live, other=0.0).to(tl.float32)
            G = tl.cumsum(decay, 0)
            total = tl.sum(decay, 0)
        if OUTPUT:
            queries = tl.load(q + t[:, None] * q_t, mask=live[:, None] & in_k[None, :], other=0.0)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            out = tl.dot(queries, S.to(queries.dtype), input_precision=PRECISION)
            past = row[:, None] >= row[None, :]
            if DECAYS:
                scores *= tl.exp(tl.where(past, G[:, None] - G[None, :], -float("inf")))
                out *= tl.exp(G)[:, None]
            else:
                scores = tl.where(past, scores, 0.0)
            out = tl.dot(scores.to(values.dtype), values, out, input_precision=PRECISION) * scale
            tl.store(y + t[:, None] * y_t, out.to(values.dtype), mask=live[:, None] & in_v[None, :])
        if DECAYS:
            values = (values * tl.exp(total - G)[:, None]).to(keys.dtype)
            S *= tl.exp(total)
            left += total
        S = tl.dot(tl.trans(keys), values, S, input_precision=PRECISION)
    if ENDS == 1:  # noqa: SIM102 - the outer condition is settled when compiling
        if last == chunks:
            tl.store(final + head_of_batch * K * V + tile, S, mask=in_tile)
    if ENDS == 2:
        end = head_of_batch * segments + segment
        tl.store(final + end * K * V + tile, S, mask=in_tile)
        tl.store(kept + end, left)


@triton.jit
def join_segments(
    ends,  # B·H segments size: what each segment adds to the state; on return, the state that it meets
    kept,  # B·H segments: logarithm of what each leaves of the state that it meets
    initial,  # B·H size
    segments,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, INITIAL: tl.constexpr, DECAYS: tl.constexpr,
    BACKWARDS: tl.constexpr,
):  # fmt: skip
    """The scan over segments, in place, first to last or last to first."""
    blocks: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK
    head_of_batch = (tl.program_id(0) // blocks).to(tl.int64)
    element = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = element < SIZE
    state = tl.zeros([BLOCK], tl.float32)
    if INITIAL:
        state = tl.load(initial + head_of_batch * SIZE + element, mask=inside, other=0.0).to(tl.float32)
    for i in range(segments):
        segment = segments - 1 - i if BACKWARDS else i
        here = head_of_batch * segments + segment
        added = tl.load(ends + here * SIZE + element, mask=inside, other=0.0)
        tl.store(ends + here * SIZE + element, state, mask=inside)
        if DECAYS:
            state *= tl.exp(tl.load(kept + here))
        state += added

"""The scan that the delta rule and its gradients are made of, as one Triton kernel; docs/kernels.md has its equations.

In each chunk, with S the state before it,

    e  = r + (T − I) r           what is written; r = M v + x S, M = I where there is no `feed`
    y  = q S + P e + N v
    S' = decay S + wᵀ e + kᵀ v

and the gradients are the same scan, backwards, with the gradient D of the state for S:

    e ↔ dr    v ↔ dy    y ↔ dv    T, M, P, N ↔ Tᵀ, Pᵀ, Mᵀ, Nᵀ    x ↔ w    q ↔ k

Programs hold Sᵀ: then each product's first operand is what the one before it left in registers.
Rows of a chunk that lie past T are read as zeros, which change neither state nor output.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import place
from chimeralab_kernels.triton_tier.halves import halved_dot


@jit
def delta_scan(  # noqa: PLR0915
    x, w, q, k,  # B T H K each
    v,  # B T H V
    system,  # B·H chunks C C: T − I; with HALVES B·H chunks 2 C C
    feed, from_e, from_v,  # B·H chunks C C: M, P, N
    x_rows, w_rows, third_rows,  # B·H chunks C: factors of the rows of x, of w, and of q or k
    decay,  # B·H chunks K, or with row factors B·H chunks C, whose last row it is
    e, y,  # B T H V
    states,  # B·H chunks V K: the state before each chunk; backwards, the gradient of the one after it
    start,  # B·H segments K V: the state that each segment meets
    final,  # B·H K V: the last state; of a `SEGMENT`, or packed, B·H segments K V, each one's own
    table,  # chunks 2, and
    offsets,  # segments + 1: packed sequences' chunks, and the first of each sequence
    x_b, x_t, x_h, w_b, w_t, w_h, q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,  # strides
    T, H, chunks, group_heads, segments, chunks_a_segment, x_scale, w_scale, third_scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACKWARDS: tl.constexpr,
    ROWS: tl.constexpr,  # x, w and one of q and k carry row factors, belong to groups of heads, and x is w
    VALUES: tl.constexpr,  # there is a v; without, the scan is that of the transition matrix
    FEED: tl.constexpr,
    OUTPUT: tl.constexpr,  # write y
    FROM_V: tl.constexpr,  # y takes N v
    ADD: tl.constexpr,  # S' takes kᵀ v
    STATES: tl.constexpr,  # write e and states
    STARTS: tl.constexpr,
    SEGMENT: tl.constexpr,
    ENDS: tl.constexpr,  # write final
    PACKED: tl.constexpr,  # a segment is a sequence
    HALVES: tl.constexpr,  # T − I, what it multiplies and what S' takes up are two bfloat16 numbers each
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BV columns of one head's state through one segment."""
    program = tl.program_id(0)
    blocks: tl.constexpr = (V + BV - 1) // BV
    block = program % blocks
    program = program // blocks
    segment = program % segments
    head = (program // segments).to(tl.int64)  # of the batch
    b, h = head // H, head % H
    first = segment * chunks_a_segment
    last = min(first + chunks_a_segment, chunks)
    if PACKED:
        first = tl.load(offsets + segment)
        last = tl.load(offsets + segment + 1)

    row = tl.arange(0, C)
    column_k = tl.arange(0, BK)
    column_v = block * BV + tl.arange(0, BV)
    in_k, in_v = column_k < K, column_v < V
    in_tile = in_v[:, None] & in_k[None, :]
    turned = column_v[:, None] + column_k[None, :] * V  # Sᵀ in memory that holds S
    # Backwards all C × C matrices are transposed.
    cell = row[None, :] * C + row[:, None] if BACKWARDS else row[:, None] * C + row[None, :]
    group = h // group_heads
    x += b * x_b + group * x_h + column_k[None, :]
    if not ROWS:
        w += b * w_b + group * w_h + column_k[None, :]
    if OUTPUT:
        q += b * q_b + group * q_h + column_k[None, :]
        y += (b * T * H + h) * V + column_v[None, :]
    if ADD:
        k += b * k_b + group * k_h + column_k[None, :]
    if VALUES:
        v += b * v_b + h * v_h + column_v[None, :]
    if STATES:
        e += (b * T * H + h) * V + column_v[None, :]

    S = tl.zeros([BV, BK], tl.float32)
    if STARTS:
        start += (head * segments + segment) * K * V + turned
        S = tl.load(start, mask=in_tile, other=0.0).to(tl.float32)
    if not VALUES:
        S = tl.where((column_v[:, None] == column_k[None, :]) & in_tile, 1.0, 0.0)
    for i in range(first, last):
        n = first + last - 1 - i if BACKWARDS else i
        at = head * chunks + n
        token, stop = place(table, n, T, C, PACKED)
        t = (token + row).to(tl.int64)
        live = t < stop
        rows_k, rows_v = live[:, None] & in_k[None, :], live[:, None] & in_v[None, :]
        reader = tl.load(x + t[:, None] * x_t, mask=rows_k, other=0.0)
        held = S.to(reader.dtype)
        if STATES:
            here = states + at * K * V + column_v[:, None] * K + column_k[None, :]
            tl.store(here, held, mask=in_tile)
        met = tl.dot(held, tl.trans(reader), input_precision=PRECISION)  # BV C
        if ROWS:
            met *= (tl.load(x_rows + at * C + row) * x_scale)[None, :]
        if VALUES:
            values = tl.trans(tl.load(v + t[:, None] * v_t, mask=rows_v, other=0.0))
            if FEED:
                feeding = tl.load(feed + at * C * C + cell)
                met = tl.dot(values, tl.trans(feeding), met, input_precision=PRECISION)
            else:
                met += values.to(tl.float32)
        if HALVES:
            inverse = tl.load(system + 2 * at * C * C + cell)
            written = halved_dot(met, tl.trans(inverse), met)
            inverse = tl.load(system + (2 * at + 1) * C * C + cell)
            written = tl.dot(met.to(held.dtype), tl.trans(inverse), written)
        else:
            inverse = tl.load(system + at * C * C + cell)
            written = tl.dot(met.to(held.dtype), tl.trans(inverse), met, input_precision=PRECISION)
        if STATES:
            tl.store(e + t[:, None] * H * V, tl.trans(written).to(e.dtype.element_ty), mask=rows_v)
        if ROWS and (OUTPUT or ADD):
            third = tl.load(third_rows + at * C + row) * third_scale
        if OUTPUT:
            queries = tl.load(q + t[:, None] * q_t, mask=rows_k, other=0.0)
            out = tl.dot(held, tl.trans(queries), input_precision=PRECISION)
            if ROWS:
                out *= third[None, :]
            weights = tl.load(from_e + at * C * C + cell)
            out = tl.dot(written.to(held.dtype), tl.trans(weights), out, input_precision=PRECISION)
            if FROM_V:
                weights = tl.load(from_v + at * C * C + cell)
                out = tl.dot(values, tl.trans(weights), out, input_precision=PRECISION)
            tl.store(y + t[:, None] * H * V, tl.trans(out).to(y.dtype.element_ty), mask=rows_v)
        if ROWS:
            S *= tl.load(decay + at * C + C - 1)
            written *= (tl.load(w_rows + at * C + row) * w_scale)[None, :]
            S = _taken_up(written, reader, S, HALVES, PRECISION)
        else:
            S *= tl.load(decay + at * K + column_k, mask=in_k, other=0.0)[None, :]
            writer = tl.load(w + t[:, None] * w_t, mask=rows_k, other=0.0)
            S = tl.dot(written.to(held.dtype), writer, S, input_precision=PRECISION)
        if ADD:
            added = tl.load(k + t[:, None] * k_t, mask=rows_k, other=0.0)
            if ROWS:
                S = _taken_up(values * third[None, :], added, S, HALVES, PRECISION)
            else:
                S = tl.dot(values, added, S, input_precision=PRECISION)
    if ENDS:
        if SEGMENT or PACKED:
            tl.store(final + (head * segments + segment) * K * V + turned, S, mask=in_tile)
        elif (first == 0) if BACKWARDS else (last == chunks):
            tl.store(final + head * K * V + turned, S, mask=in_tile)


@jit
def _taken_up(x, y, S, HALVES: tl.constexpr, PRECISION: tl.constexpr):
    """S + x y for a float32 x."""
    if HALVES:
        return halved_dot(x, y, S)
    return tl.dot(x.to(y.dtype), y, S, input_precision=PRECISION)


@jit
def join_delta_segments(
    ends,  # B·H segments K V: what each segment makes of a zero state; on return, the state that it meets
    transitions,  # B·H segments K K: by what matrix it multiplies the state that it meets
    initial,  # B·H K V
    segments,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    INITIAL: tl.constexpr, BACKWARDS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The scan over segments, in place, first to last or, with transposed matrices, last to first."""
    blocks: tl.constexpr = (V + BV - 1) // BV
    head = (tl.program_id(0) // blocks).to(tl.int64)
    k = tl.arange(0, BK)
    v = tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    tile = k[:, None] * V + v[None, :]
    in_tile = (k < K)[:, None] & (v < V)[None, :]
    in_matrix = (k < K)[:, None] & (k < K)[None, :]
    matrix = k[None, :] * K + k[:, None] if BACKWARDS else k[:, None] * K + k[None, :]
    state = tl.zeros([BK, BV], tl.float32)
    if INITIAL:
        state = tl.load(initial + head * K * V + tile, mask=in_tile, other=0.0).to(tl.float32)
    for i in range(segments):
        at = head * segments + (segments - 1 - i if BACKWARDS else i)
        added = tl.load(ends + at * K * V + tile, mask=in_tile, other=0.0)
        tl.store(ends + at * K * V + tile, state, mask=in_tile)
        transition = tl.load(transitions + at * K * K + matrix, mask=in_matrix, other=0.0)
        state = tl.dot(transition, state, added, input_precision=PRECISION)

"""Gradients of the delta rule's inputs in the general form, with a and b, chunk by chunk.

As in `delta_gradients`, for a chunk's stacks of readers and writers. With O = dy above dr and I = e above v,
scores have the gradient O Iᵀ, readers have O S and writers I D through the states, S before the chunk and D
the gradient of the one after it. What a pair adds to the gradient of the decay where it is read and takes away where
it is written is the same product of rounded operands, and cancels.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import sums
from chimeralab_kernels.triton_tier.delta_decays import block_size, load_decays
from chimeralab_kernels.triton_tier.delta_stacks import block_factors, level_factors, reader_rows
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import place
from chimeralab_kernels.triton_tier.halves import halves


@jit
def delta_general_gradients(  # noqa: PLR0915
    q, k,  # B T G K
    a, b, g,  # B T H K
    v, dy,  # B T H V
    e, dr,  # B T H V
    states, ends,  # B·H chunks V K: the state before each chunk; the gradient of the one after it
    steep,  # B·H chunks
    dq, dk, da, db, dg,  # B T H K
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h, g_b, g_t, g_h, g_k,  # strides
    v_b, v_t, v_h, y_b, y_t, y_h,
    T, H, chunks, group_heads, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr,  # C = 2 ** LEVELS
    LIMIT: tl.constexpr,
    FLAT: tl.constexpr,  # chunks that are not steep; otherwise those that are
    PACKED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    HALVES: tl.constexpr,  # dA as two bfloat16 numbers
):  # fmt: skip
    """One program: a block of K of one chunk of one head."""
    blocks: tl.constexpr = (K + BK - 1) // BK
    at = tl.program_id(0).to(tl.int64) // blocks
    block = tl.program_id(0) % blocks
    if (tl.load(steep + at) == 0) != FLAT:
        return
    head = at // chunks
    n, h = head // H, head % H
    first, stop = place(table, at % chunks, T, C, PACKED)
    first = first.to(tl.int64)
    query, t, reach = reader_rows(C)
    token = tl.arange(0, C)
    live = first + t < stop
    mine = (n * T + first + t) * H + h
    here = (first + t)[:, None]
    low = dr.dtype.element_ty

    # Through the states, and the scores' gradients.
    reads_out = tl.where(query[:, None], dy + n * y_b + h * y_h + here * y_t, dr + mine[:, None] * V)
    lower = tl.arange(0, 2 * C)[:, None] >= C
    writes_in = tl.where(lower, v + n * v_b + h * v_h + here * v_t, e + mine[:, None] * V)
    column = block * BK + tl.arange(0, BK)
    in_k = column < K
    dR = tl.zeros([2 * C, BK], tl.float32)
    dW = tl.zeros([2 * C, BK], tl.float32)
    dA = tl.zeros([2 * C, 2 * C], tl.float32)
    left = tl.zeros([BK], tl.float32)
    for start in range(0, V, BV):
        column_v = start + tl.arange(0, BV)
        in_v = column_v < V
        tile = at * K * V + column_v[:, None] * K + column[None, :]
        in_tile = in_v[:, None] & in_k[None, :]
        out = tl.load(reads_out + column_v[None, :], mask=live[:, None] & in_v[None, :], other=0.0)
        into = tl.load(writes_in + column_v[None, :], mask=live[:, None] & in_v[None, :], other=0.0)
        S = tl.load(states + tile, mask=in_tile, other=0.0)
        D = tl.load(ends + tile, mask=in_tile, other=0.0)
        left += tl.sum(S.to(tl.float32) * D.to(tl.float32), 0)
        dA = tl.dot(out, tl.trans(into), dA, input_precision=PRECISION)
        dR = tl.dot(out, S, dR, input_precision=PRECISION)
        dW = tl.dot(into, D, dW, input_precision=PRECISION)

    q += n * q_b + h // group_heads * q_h + here * q_t
    k += n * k_b + h // group_heads * k_h
    reader = tl.where(query[:, None], q, a + n * a_b + h * a_h + here * a_t)
    writer = tl.where(lower, k + here * k_t, b + n * b_b + h * b_h + here * b_t)
    sign = tl.where(query, scale, 1.0)[:, None]
    inside = live[:, None] & in_k[None, :]
    g += n * g_b + h * g_h + (first + token)[:, None] * g_t + column[None, :] * g_k
    gs, total = load_decays(g, (first + token < stop)[:, None] & in_k[None, :])
    size = LEVELS if FLAT else block_size(gs, LIMIT, LEVELS)
    w_block, w_chunk = block_factors(gs, total, t, t + 1, size, True, FLAT, LIMIT, SPLIT, PRECISION)
    W = tl.load(writer + column[None, :], mask=inside, other=0.0).to(tl.float32)
    faded_w = (W * w_block).to(low)
    left *= tl.exp2(total)
    dA = tl.where(t[None, :] < (t + tl.where(query, 1, 0))[:, None], dA, 0.0)
    if HALVES:
        dA, rest = halves(dA)
    else:
        dA = dA.to(low)
    at_own = mine[:, None] * K + column[None, :]
    if FLAT:  # exp(G) = exp(E) exp(total / 2): states and pairs share their factors
        half = tl.exp2(0.5 * total)[None, :]
        dW *= half
        left += tl.sum(faded_w.to(tl.float32) * dW, 0)
        dR = tl.dot(dA, faded_w, dR * half, input_precision=PRECISION)
        if HALVES:
            dR = tl.dot(rest, faded_w, dR)
        r_block, _ = block_factors(gs, total, t, reach, size, False, FLAT, LIMIT, SPLIT, PRECISION)
        R = tl.load(reader + column[None, :], mask=inside, other=0.0).to(tl.float32) * sign
        faded_r = (R * r_block).to(low)
        d_decay = sums(token[:, None] < reach[None, :], faded_r.to(tl.float32) * dR, SPLIT, PRECISION)
        dR *= r_block * sign
        tl.store(dq + at_own, dR.to(dq.dtype.element_ty), mask=inside & query[:, None])
        tl.store(da + at_own, dR.to(low), mask=inside & ~query[:, None])
        dW = tl.dot(tl.trans(dA), faded_r, dW, input_precision=PRECISION)
        if HALVES:
            dW = tl.dot(tl.trans(rest), faded_r, dW)
        d_decay -= sums(token[:, None] <= t[None, :], faded_w.to(tl.float32) * dW, SPLIT, PRECISION)
        dW *= w_block
    else:
        r_block, r_chunk = block_factors(gs, total, t, reach, size, False, FLAT, LIMIT, SPLIT, PRECISION)
        R = tl.load(reader + column[None, :], mask=inside, other=0.0).to(tl.float32) * sign
        faded_r = (R * r_block).to(low)
        dR *= r_chunk
        dW *= w_chunk
        read = R * dR
        wrote = W * dW
        left += tl.sum(wrote, 0)
        apart = t[:, None] ^ t[None, :]
        of_block = tl.where(apart >> size == 0, dA, 0.0).to(low)
        d_reader = tl.dot(of_block, faded_w, input_precision=PRECISION)
        d_writer = tl.dot(tl.trans(of_block), faded_r, input_precision=PRECISION)
        read += faded_r.to(tl.float32) * d_reader
        wrote += faded_w.to(tl.float32) * d_writer
        dR += d_reader * r_block
        dW += d_writer * w_block
        for level in range(size, LEVELS):
            r_level = level_factors(gs, t, reach, level, False, SPLIT, PRECISION)
            w_level = level_factors(gs, t, t + 1, level, True, SPLIT, PRECISION)
            faded_r = (R * r_level).to(low)
            faded_w = (W * w_level).to(low)
            of_level = tl.where(apart >> level == 1, dA, 0.0).to(low)
            d_reader = tl.dot(of_level, faded_w, input_precision=PRECISION)
            d_writer = tl.dot(tl.trans(of_level), faded_r, input_precision=PRECISION)
            read += faded_r.to(tl.float32) * d_reader
            wrote += faded_w.to(tl.float32) * d_writer
            dR += d_reader * r_level
            dW += d_writer * w_level
        d_decay = sums(token[:, None] < reach[None, :], read, SPLIT, PRECISION)
        d_decay -= sums(token[:, None] <= t[None, :], wrote, SPLIT, PRECISION)
        dR *= sign
        tl.store(dq + at_own, dR.to(dq.dtype.element_ty), mask=inside & query[:, None])
        tl.store(da + at_own, dR.to(low), mask=inside & ~query[:, None])

    own = ((n * T + first + token) * H + h)[:, None] * K + column[None, :]
    in_own = (first + token < stop)[:, None] & in_k[None, :]
    tl.store(dg + own, (d_decay + left[None, :]).to(dg.dtype.element_ty), mask=in_own)
    tl.store(db + at_own, dW.to(low), mask=inside & ~lower)
    tl.store(dk + at_own, dW.to(dk.dtype.element_ty), mask=inside & lower)

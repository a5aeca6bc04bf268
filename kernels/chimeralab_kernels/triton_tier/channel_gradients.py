"""Gated linear attention with a decay by channel: gradients within chunks, with states and their gradients given."""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import LOG2_E, decays, from_boundary, sums
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import FLOOR, place


@jit
def within_chunks_backward(  # noqa: PLR0915
    q, k, g, u,  # as in the forward pass
    v,  # B T H V
    dy,  # B T H V
    states,  # B·H chunks K V: the state before each chunk
    d_states,  # B·H chunks K V: the gradient of the state after it
    dq,  # B T H K
    dk,  # B T H K
    dg,  # B T H K
    du,  # B·H chunks K, this chunk's part
    steep,  # B·H chunks
    table,
    q_b, q_t, q_h, k_b, k_t, k_h, g_b, g_t, g_h, g_k, v_b, v_t, v_h, y_b, y_t, y_h,  # strides
    T, H, chunks, heads_a_group, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr, LIMIT: tl.constexpr,
    FLAT: tl.constexpr, BONUS: tl.constexpr, PACKED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BK channels of a chunk of one head; FLAT: of one that is not steep, otherwise of one that is.

    g_r moves what tokens from r on read, what those before it leave to later chunks, and what is left of the state:
    dg_r = Σ_{t ≥ r} (q ∘ dq − k ∘ dk)_t + Σ_t k_t ∘ (dk_t through the state) + exp(g of the chunk) ∘ Σ_v S ∘ dS.
    A token's own term is in neither q ∘ dq nor k ∘ dk here. A bonus: only what tokens after r read.
    """
    blocks: tl.constexpr = (K + BK - 1) // BK
    block = tl.program_id(0) % blocks
    n = tl.program_id(0) // blocks % chunks
    head = (tl.program_id(0) // blocks // chunks).to(tl.int64)
    b, h = head // H, head % H
    row = tl.arange(0, C)
    first, stop = place(table, n, T, C, PACKED)
    live = first + row < stop
    later, earlier = row[:, None], row[None, :]
    chunk = head * chunks + n
    if (tl.load(steep + chunk) != 0) == FLAT:
        return
    column = block * BK + tl.arange(0, BK)
    in_k = column < tl.where(first < stop, K, 0)
    inside = live[:, None] & in_k[None, :]

    first = first.to(tl.int64)
    q += b * q_b + first * q_t + h // heads_a_group * q_h
    k += b * k_b + first * k_t + h // heads_a_group * k_h
    g += b * g_b + first * g_t + h * g_h
    v += b * v_b + first * v_t + h * v_h
    dy += b * y_b + first * y_t + h * y_h
    states += chunk * K * V
    d_states += chunk * K * V
    rows_v, rows_y, rows_s = row[:, None] * v_t, row[:, None] * y_t, column[:, None] * V

    dA = tl.zeros([C, C], tl.float32)
    dq_ = tl.zeros([C, BK], tl.float32)
    dk_ = tl.zeros([C, BK], tl.float32)
    through = tl.zeros([BK], tl.float32)
    for start in range(0, V, BV):
        column_v = (start + tl.arange(0, BV))[None, :]
        in_v = column_v < V
        vs = tl.load(v + rows_v + column_v, mask=live[:, None] & in_v, other=0.0)
        dys = tl.load(dy + rows_y + column_v, mask=live[:, None] & in_v, other=0.0)
        S = tl.load(states + rows_s + column_v, mask=in_k[:, None] & in_v, other=0.0)
        D = tl.load(d_states + rows_s + column_v, mask=in_k[:, None] & in_v, other=0.0)
        through += tl.sum(S.to(tl.float32) * D.to(tl.float32), 1)
        dA = tl.dot(dys, tl.trans(vs), dA, input_precision=PRECISION)
        dq_ = tl.dot(dys, tl.trans(S), dq_, input_precision=PRECISION)
        dk_ = tl.dot(vs, tl.trans(D), dk_, input_precision=PRECISION)

    qs = tl.load(q + row[:, None] * q_t + column[None, :], mask=inside, other=0.0)
    ks = tl.load(k + row[:, None] * k_t + column[None, :], mask=inside, other=0.0)
    gs = tl.load(g + row[:, None] * g_t + column[None, :] * g_k, mask=inside, other=0.0)
    gs = gs.to(tl.float32)
    gs = tl.where(gs < FLOOR, FLOOR, gs) * LOG2_E
    since, until, centred, size = decays(gs, FLAT, LIMIT, LEVELS, SPLIT, PRECISION)
    own_decay = gs if BONUS else 0.0
    total = tl.sum(gs, 0)
    through *= tl.exp2(total)

    dA *= scale
    own = tl.sum(tl.where(later == earlier, dA, 0.0), 1)
    dA = tl.where(later > earlier, dA, 0.0)
    both = (dA + tl.trans(dA)).to(qs.dtype)
    # q ∘ dq and k ∘ dk take operands as they were rounded: a pair's share is then the same number in both.
    Xq = (qs.to(tl.float32) * tl.exp2(tl.minimum(centred - own_decay, LIMIT))).to(qs.dtype)
    Xk = (ks.to(tl.float32) * tl.exp2(tl.minimum(-centred, LIMIT))).to(qs.dtype)
    if FLAT:
        # exp(since) = exp(centred) exp(total / 2): states and pairs share their factors.
        half = tl.exp2(0.5 * total)[None, :]
        dq_ *= half * scale
        dk_ *= half
        through += tl.sum(Xk.to(tl.float32) * dk_, 0)
        dq_ = tl.dot(tl.where(later > earlier, both, 0.0).to(qs.dtype), Xk, dq_, input_precision=PRECISION)
        dk_ = tl.dot(tl.where(later < earlier, both, 0.0).to(qs.dtype), Xq, dk_, input_precision=PRECISION)
        read = Xq.to(tl.float32) * dq_
        moved = read - Xk.to(tl.float32) * dk_
        dq_ *= tl.exp2(centred - own_decay)
        dk_ *= tl.exp2(-centred)
    else:
        dq_ *= tl.exp2(since - own_decay) * scale
        dk_ *= tl.exp2(until)
        through += tl.sum(ks.to(tl.float32) * dk_, 0)
        in_block = tl.where((later ^ earlier) >> size == 0, both, 0.0).to(qs.dtype)
        dXq = tl.dot(tl.where(later > earlier, in_block, 0.0).to(qs.dtype), Xk, input_precision=PRECISION)
        dXk = tl.dot(tl.where(later < earlier, in_block, 0.0).to(qs.dtype), Xq, input_precision=PRECISION)
        read = qs.to(tl.float32) * dq_ + Xq.to(tl.float32) * dXq
        moved = read - ks.to(tl.float32) * dk_ - Xk.to(tl.float32) * dXk
        dq_ += dXq * tl.exp2(tl.minimum(centred - own_decay, LIMIT))
        dk_ += dXk * tl.exp2(tl.minimum(-centred, LIMIT))
        for level in range(size, LEVELS):
            query = (later >> level) & 1 == 1
            decay = tl.exp2(sums(from_boundary(later, earlier, level, BONUS), gs, SPLIT, PRECISION))
            X = (tl.where(query, qs, ks).to(tl.float32) * decay).to(qs.dtype)
            of_level = tl.where((later ^ earlier) >> level == 1, both, 0.0).to(qs.dtype)
            dX = tl.dot(of_level, X, input_precision=PRECISION)
            share = X.to(tl.float32) * dX
            moved += tl.where(query, share, -share)
            if BONUS:
                read += tl.where(query, share, 0.0)
            dX *= decay
            dq_ += tl.where(query, dX, 0.0)
            dk_ += tl.where(query, 0.0, dX)

    q32, k32 = qs.to(tl.float32), ks.to(tl.float32)
    moved = sums(later <= earlier, moved, SPLIT, PRECISION) + through[None, :]
    if BONUS:
        moved -= read
        bonus = tl.load(u + h * K + column, mask=in_k, other=0.0).to(tl.float32)[None, :]
        tl.store(du + chunk * K + column, tl.sum(own[:, None] * q32 * k32, 0), mask=column < K)
        dq_ += own[:, None] * bonus * k32
        dk_ += own[:, None] * bonus * q32
    else:
        dq_ += own[:, None] * k32
        dk_ += own[:, None] * q32
    here = ((b * T + first) * H + h) * K
    at = row[:, None] * (H * K) + column[None, :]
    tl.store(dq + here + at, dq_.to(dq.dtype.element_ty), mask=inside)
    tl.store(dk + here + at, dk_.to(dk.dtype.element_ty), mask=inside)
    tl.store(dg + here + at, moved.to(dg.dtype.element_ty), mask=inside)

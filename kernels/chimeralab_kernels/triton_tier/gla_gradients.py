"""Gated linear attention with a scalar decay: the gradients of queries, keys and decays, chunk by chunk.

Given the state S before each chunk and the gradient D of the state after it no chunk waits for another. With
G the running sum of g within the chunk, G' what follows to its end and L_ts = exp(G_t − G_s) for s ≤ t:

    dq_t = scale · (exp(G_t) S dy_t + Σ_{s≤t} L_ts (dy_t · v_s) k_s)
    dk_s = scale · (exp(G'_s) D v_s + Σ_{t≥s} L_ts (dy_t · v_s) q_t)

Both are one sum over other operands, and each is a program of its own: two programs fit a processor where one that
makes both would fit once, and what they share they find in the cache.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import FLOOR, place


@jit
def one_gradient(
    reads, writes, state, partner, own, other, out, aligned, whole,
    r_t, w_t, p_t, o_t, G, total, live, block, H, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    OF_KEYS: tl.constexpr, DECAYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row, column_k = tl.arange(0, C), block * BK + tl.arange(0, BK)
    in_k = column_k < K
    rows_k = live[:, None] & in_k[None, :]
    # What is needed last is asked for first: it is under way while the products are made.
    with_pairs = tl.load(other + row[:, None] * o_t + column_k[None, :], mask=rows_k, other=0.0)
    mine = tl.load(own + row[:, None] * p_t + column_k[None, :], mask=rows_k, other=0.0)
    met = tl.zeros([BK], tl.float32)
    pairs = tl.zeros([C, C], tl.float32)
    found = tl.zeros([C, BK], tl.float32)
    for start in range(0, V, BV):
        column_v = start + tl.arange(0, BV)
        in_v = column_v < V
        rows_v = live[:, None] & in_v[None, :]
        x = tl.load(reads + row[:, None] * r_t + column_v[None, :], mask=rows_v, other=0.0)
        z = tl.load(writes + row[:, None] * w_t + column_v[None, :], mask=rows_v, other=0.0)
        at = column_k[:, None] * V + column_v[None, :]
        S = tl.load(state + at, mask=in_k[:, None] & in_v[None, :], other=0.0)
        pairs = tl.dot(x, tl.trans(z), pairs, input_precision=PRECISION)
        found = tl.dot(x, tl.trans(S), found, input_precision=PRECISION)
        if OF_KEYS and DECAYS:
            before = tl.load(partner + at, mask=in_k[:, None] & in_v[None, :], other=0.0)
            met += tl.sum(S.to(tl.float32) * before.to(tl.float32), 1)
    if OF_KEYS:
        decay = tl.where(row[:, None] <= row[None, :], G[None, :] - G[:, None], -float("inf"))
        found *= tl.exp(total - G)[:, None]
    else:
        decay = tl.where(row[:, None] >= row[None, :], G[:, None] - G[None, :], -float("inf"))
        found *= tl.exp(G)[:, None]
    mine = mine.to(tl.float32)
    if OF_KEYS and DECAYS:
        crossed = tl.sum(found * mine, 1)
        tl.store(whole, (tl.sum(crossed, 0) + tl.sum(met, 0) * tl.exp(total)) * scale)
    found = tl.dot((pairs * tl.exp(decay)).to(with_pairs.dtype), with_pairs, found, input_precision=PRECISION) * scale
    tl.store(out + row[:, None] * (H * K) + column_k[None, :], found.to(out.dtype.element_ty), mask=rows_k)
    if DECAYS:
        tl.store(aligned + row * H, tl.sum(found * mine, 1), mask=live)


@jit
def chunk_gradients(
    q,  # B T G K
    k,  # B T G K
    v,  # B T H V
    dy,  # B T H V
    g,  # B T H
    S,  # B·H chunks K V: the state before each chunk
    D,  # B·H chunks K V: its gradient after each, over the scale
    dq,  # B T H K
    dk,  # B T H K
    q_dq,  # blocks B T H: q · dq, the part of each block of K
    k_dk,  # blocks B T H
    whole,  # blocks B·H chunks: what of dg all tokens of a chunk share, besides those two
    table,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, y_b, y_t, y_h, g_b, g_t, g_h,
    B, T, H, chunks, heads_a_group, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    DECAYS: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: dq or dk of one chunk, for BK channels."""
    blocks: tl.constexpr = (K + BK - 1) // BK
    half = tl.program_id(0) % 2
    block = tl.program_id(0) // 2 % blocks
    n = tl.program_id(0) // (2 * blocks) % chunks
    head = (tl.program_id(0) // (2 * blocks) // chunks).to(tl.int64)
    b, h = head // H, head % H
    first, stop = place(table, n, T, C, PACKED)
    row = tl.arange(0, C)
    live = first + row < stop
    first = first.to(tl.int64)
    chunk = head * chunks + n
    G = tl.zeros([C], tl.float32)
    total = 0.0
    if DECAYS:
        decay = tl.load(g + b * g_b + (first + row) * g_t + h * g_h, mask=live, other=0.0).to(tl.float32)
        decay = tl.where(decay < FLOOR, FLOOR, decay)
        G = tl.cumsum(decay, 0)
        total = tl.sum(decay, 0)
    q += b * q_b + first * q_t + h // heads_a_group * q_h
    k += b * k_b + first * k_t + h // heads_a_group * k_h
    v += b * v_b + first * v_t + h * v_h
    dy += b * y_b + first * y_t + h * y_h
    here = (b * T + first) * H + h
    slot = block * B * T * H + here
    whole += block * B * H * chunks + chunk
    S += chunk * K * V
    D += chunk * K * V
    if half == 0:
        one_gradient(
            dy, v, S, D, q, k, dq + here * K, q_dq + slot, whole, y_t, v_t, q_t, k_t,
            G, total, live, block, H, scale,
            K, V, BK, BV, C, False, DECAYS, PRECISION,
        )  # fmt: skip
    else:
        one_gradient(
            v, dy, D, S, k, q, dk + here * K, k_dk + slot, whole, v_t, y_t, k_t, q_t,
            G, total, live, block, H, scale,
            K, V, BK, BV, C, True, DECAYS, PRECISION,
        )  # fmt: skip


@jit
def decay_gradient(
    q_dq,  # blocks B T H: q · dq
    k_dk,  # blocks B T H: k · dk
    whole,  # blocks B·H chunks: Σ_t k_t · (dk_t through the state) + exp(G of the chunk) · ⟨S, D⟩
    dg,  # B T H
    table,
    B, T, H, chunks,
    BLOCKS: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """dg_r = Σ_{t ≥ r} (q · dq − k · dk)_t + whole, the sum over r's chunk.

    g_r moves what tokens from r on read, and the decay of the whole chunk; it does not move what they write. A sum
    to the end of the sequence would need no `whole`, but would gather all rounding errors on the way.
    """
    head = (tl.program_id(0) // chunks).to(tl.int64)
    n = tl.program_id(0) % chunks
    token, stop = place(table, n, T, C, PACKED)
    t = (token + tl.arange(0, C)).to(tl.int64)
    live = t < stop
    moved = tl.zeros([C], tl.float32)
    after = 0.0
    for block in tl.static_range(BLOCKS):
        at = (block * B + head // H) * T * H + t * H + head % H
        moved += tl.load(q_dq + at, mask=live, other=0.0) - tl.load(k_dk + at, mask=live, other=0.0)
        after += tl.load(whole + (block * B * H + head) * chunks + n)
    after += tl.sum(moved, 0)
    at = (head // H * T + t) * H + head % H
    tl.store(dg + at, (after - tl.cumsum(moved, 0) + moved).to(dg.dtype.element_ty), mask=live)

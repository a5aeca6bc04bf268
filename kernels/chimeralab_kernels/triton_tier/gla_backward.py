"""Triton kernels that scan gated linear attention backwards; the algorithm is in docs/kernels.md.

In each chunk, with A and the decays as in the forward pass and D the gradient of the state after it:

    dP = (dy vᵀ) ∘ L        dq = dP k + exp(G) dy Sᵀ            dv = Aᵀ dy + exp(G_C − G) k D
                            dk = dPᵀ q + exp(G_C − G) v Dᵀ      D ← exp(G_C) D + (exp(G) q)ᵀ dy

The gradient of G_t gathers q·dq − k·dk, that of G_C what the state after the chunk owes to the decay. It is
summed within the chunk alone: a sum over the whole sequence would gather its rounding errors too.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def segment_gradients(
    q,
    dy,
    g,
    d_states,  # B·H segments K V: what each segment adds to the gradient of the state before it
    kept,  # B·H segments
    q_b, q_t, q_g, dy_b, dy_t, dy_h, g_b, g_t, g_h,
    T, H, heads_a_group, segments, chunks_a_segment, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    DECAYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Σ_t exp(G_t) q_t dy_tᵀ over a segment, G from its start."""
    program = tl.program_id(0)
    blocks_v: tl.constexpr = (V + BV - 1) // BV
    blocks_k: tl.constexpr = (K + BK - 1) // BK
    block_v = program % blocks_v
    block_k = program // blocks_v % blocks_k
    program = program // (blocks_v * blocks_k)
    segment = program % segments
    head_of_batch = (program // segments).to(tl.int64)
    b, h = head_of_batch // H, head_of_batch % H
    first = segment * chunks_a_segment
    last = min(first + chunks_a_segment, tl.cdiv(T, C))

    row = tl.arange(0, C).to(tl.int64)
    column_k = block_k * BK + tl.arange(0, BK)
    column_v = block_v * BV + tl.arange(0, BV)
    in_k, in_v = column_k < K, column_v < V
    q += b * q_b + h // heads_a_group * q_g + column_k[None, :]
    dy += b * dy_b + h * dy_h + column_v[None, :]
    if DECAYS:
        g += b * g_b + h * g_h
    D = tl.zeros([BK, BV], tl.float32)
    left = 0.0
    for n in range(first, last):
        t = n * C + row
        live = t < T
        queries = tl.load(q + t[:, None] * q_t, mask=live[:, None] & in_k[None, :], other=0.0)
        d_out = tl.load(dy + t[:, None] * dy_t, mask=live[:, None] & in_v[None, :], other=0.0)
        if DECAYS:
            decay = tl.load(g + t * g_t, mask=live, other=0.0).to(tl.float32)
            d_out = (d_out * tl.exp(left + tl.cumsum(decay, 0))[:, None]).to(queries.dtype)
            left += tl.sum(decay, 0)
        D = tl.dot(tl.trans(queries), d_out, D, input_precision=PRECISION)
    end = head_of_batch * segments + segment
    tile = column_k[:, None] * V + column_v[None, :]
    tl.store(d_states + end * K * V + tile, D * scale, mask=in_k[:, None] & in_v[None, :])
    tl.store(kept + end, left)


@triton.jit
def scan_backwards(  # noqa: PLR0915
    q, k, v, g, dy,
    states,  # B·H chunks K V: the state before each chunk
    end,  # B·H (segments) K V: gradient of the state after each segment
    dq, dk,  # blocks B T H K
    dv,  # B T H V
    dg,  # blocks B T H, float32
    d_initial,  # B·H K V
    q_b, q_t, q_g, k_b, k_t, k_g, v_b, v_t, v_h, g_b, g_t, g_h, dy_b, dy_t, dy_h,
    B, T, H, heads_a_group, segments, chunks_a_segment, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    DECAYS: tl.constexpr, ENDS: tl.constexpr, INITIAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a block of values of one head through one segment, last chunk first. BK ≥ K.

    The block's share of dq, dk and dg goes to a slot of its own.
    """
    program = tl.program_id(0)
    blocks_v: tl.constexpr = (V + BV - 1) // BV
    block_v = (program % blocks_v).to(tl.int64)
    program = program // blocks_v
    segment = program % segments
    head_of_batch = (program // segments).to(tl.int64)
    b, h = head_of_batch // H, head_of_batch % H
    group = h // heads_a_group
    chunks = tl.cdiv(T, C)
    first = segment * chunks_a_segment
    last = min(first + chunks_a_segment, chunks)

    row = tl.arange(0, C).to(tl.int64)
    column_k = tl.arange(0, BK)
    column_v = block_v * BV + tl.arange(0, BV)
    in_k, in_v = column_k < K, column_v < V
    tile = column_k[:, None] * V + column_v[None, :]
    in_tile = in_k[:, None] & in_v[None, :]
    q += b * q_b + group * q_g + column_k[None, :]
    k += b * k_b + group * k_g + column_k[None, :]
    v += b * v_b + h * v_h + column_v[None, :]
    dy += b * dy_b + h * dy_h + column_v[None, :]
    if DECAYS:
        g += b * g_b + h * g_h
    slot = block_v * B + b
    dq += (slot * T * H + h) * K + column_k[None, :]
    dk += (slot * T * H + h) * K + column_k[None, :]
    dg += slot * T * H + h
    dv += (b * T * H + h) * V + column_v[None, :]

    D = tl.zeros([BK, BV], tl.float32)
    if ENDS:
        D = tl.load(end + (head_of_batch * segments + segment) * K * V + tile, mask=in_tile, other=0.0)
    past = row[:, None] >= row[None, :]
    for i in range(first, last):
        n = first + last - 1 - i
        t = n * C + row
        live = t < T
        mask_k = live[:, None] & in_k[None, :]
        mask_v = live[:, None] & in_v[None, :]
        queries = tl.load(q + t[:, None] * q_t, mask=mask_k, other=0.0)
        keys = tl.load(k + t[:, None] * k_t, mask=mask_k, other=0.0)
        values = tl.load(v + t[:, None] * v_t, mask=mask_v, other=0.0)
        d_out = tl.load(dy + t[:, None] * dy_t, mask=mask_v, other=0.0)
        S = tl.load(states + (head_of_batch * chunks + n) * K * V + tile, mask=in_tile, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
        d_scores = tl.dot(d_out, tl.trans(values), input_precision=PRECISION) * scale
        if DECAYS:
            decay = tl.load(g + t * g_t, mask=live, other=0.0).to(tl.float32)
            G = tl.cumsum(decay, 0)
            total = tl.sum(decay, 0)
            between = tl.exp(tl.where(past, G[:, None] - G[None, :], -float("inf")))
            from_start = tl.exp(G)[:, None]
            to_end = tl.exp(total - G)[:, None]
            d_scores *= between
            owed = scores * d_scores
            d_G = tl.sum(owed, 1) - tl.sum(owed, 0)
            scores *= between
        else:
            scores = tl.where(past, scores, 0.0)
            d_scores = tl.where(past, d_scores, 0.0)
        scores = (scores * scale).to(d_out.dtype)
        d_scores = d_scores.to(keys.dtype)

        rounded = D.to(keys.dtype)
        d_values = tl.dot(keys, rounded, input_precision=PRECISION)
        if DECAYS:
            d_values *= to_end
        d_values = tl.dot(tl.trans(scores), d_out, d_values, input_precision=PRECISION)
        tl.store(dv + t[:, None] * (H * V), d_values.to(dv.dtype.element_ty), mask=mask_v)

        d_keys = tl.dot(values, tl.trans(rounded), input_precision=PRECISION)
        if DECAYS:
            d_keys *= to_end
            written = tl.sum(d_keys * keys, 1)
            d_G -= written
            d_total = tl.sum(written, 0) + tl.exp(total) * tl.sum(tl.sum(D * S, 1), 0)
        d_keys = tl.dot(tl.trans(d_scores), queries, d_keys, input_precision=PRECISION)
        tl.store(dk + t[:, None] * (H * K), d_keys.to(dk.dtype.element_ty), mask=mask_k)

        d_queries = tl.dot(d_out, tl.trans(S), input_precision=PRECISION) * scale
        if DECAYS:
            d_queries *= from_start
            d_G += tl.sum(d_queries * queries, 1)
            # g_r moves every G_t with t ≥ r, and the chunk's total.
            d_decay = tl.sum(d_G, 0) - tl.cumsum(d_G, 0) + d_G + d_total
            tl.store(dg + t * H, d_decay, mask=live)
            queries = (queries * from_start).to(queries.dtype)
            D *= tl.exp(total)
        d_queries = tl.dot(d_scores, keys, d_queries, input_precision=PRECISION)
        tl.store(dq + t[:, None] * (H * K), d_queries.to(dq.dtype.element_ty), mask=mask_k)
        D += tl.dot(tl.trans(queries), d_out, input_precision=PRECISION) * scale
    if INITIAL:  # noqa: SIM102 - the outer condition is settled when compiling
        if first == 0:
            tl.store(d_initial + head_of_batch * K * V + tile, D, mask=in_tile)

"""Gated linear attention with a decay by channel: what each chunk does by itself; the forward pass.

Scores are A_ts = Σ_k q_tk k_sk exp(Σ_{s<r≤t} g_rk). Blocks of tokens through which no channel decays by more than two
to the power of 2 · LIMIT take them at once, as a product of q exp(E) and k exp(−E), with E the sum of g since the
block's middle: factors of any size, but far from overflow, and exact wherever t ≥ s. Weak decays leave one block, the
chunk. Pairs in different blocks take no positive exponent. The chunk is halved again and again, and a pair belongs to
the level where it first falls into different halves, h tokens each; it goes through the boundary between them. At
level h a token is either a query (second half) or a key (first half), so that one matrix

    X_t = exp(g between t and the boundary) ∘ (q_t or k_t)                 A_ts = X_t · X_s where (t xor s) div h = 1

serves both, and in the backward pass one product with the symmetric gradient gives dq to some rows and dk to others.
The sums of g are products with matrices of ones: no large sum is subtracted from another. docs/kernels.md has the rest.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.channel_decays import LOG2_E, decays, from_boundary, sums
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import FLOOR, place


@jit
def within_chunks(  # noqa: PLR0915
    q,  # B T Hq K
    k,  # B T Hq K
    g,  # B T H K, logarithms
    u,  # H K, the bonus
    queries,  # B·H chunks C K: scale · q, decayed from the chunk's start
    keys,  # B·H chunks C K: k, decayed to its end
    scores,  # B·H chunks C C: scale · A
    kept,  # B·H chunks K: logarithm of what the chunk leaves of the state
    steep,  # B·H chunks: whether a channel decays by more than 2 · LIMIT, and the chunk is no single block
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, g_b, g_t, g_h, g_k,  # strides
    T, H, chunks, heads_a_group, scale,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr, LIMIT: tl.constexpr,
    FLAT: tl.constexpr, BONUS: tl.constexpr, PACKED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a chunk of one head. FLAT: taken as one block, and `steep` written; otherwise steep ones again."""
    n = tl.program_id(0) % chunks
    head = (tl.program_id(0) // chunks).to(tl.int64)  # of the batch
    b, h = head // H, head % H
    row = tl.arange(0, C)
    first, stop = place(table, n, T, C, PACKED)
    live = first + row < stop
    first = first.to(tl.int64)
    later, earlier = row[:, None], row[None, :]
    chunk = head * chunks + n
    if not FLAT:  # noqa: SIM102 - `and` would load either way
        if tl.load(steep + chunk) == 0:
            return
    q += b * q_b + first * q_t + h // heads_a_group * q_h
    k += b * k_b + first * k_t + h // heads_a_group * k_h
    g += b * g_b + first * g_t + h * g_h
    queries += chunk * C * K
    keys += chunk * C * K

    A = tl.zeros([C, C], tl.float32)
    strongest = 0.0
    for block in range((K + BK - 1) // BK):
        column = block * BK + tl.arange(0, BK)
        in_k = column < K
        inside = live[:, None] & in_k[None, :]
        qs = tl.load(q + row[:, None] * q_t + column[None, :], mask=inside, other=0.0)
        ks = tl.load(k + row[:, None] * k_t + column[None, :], mask=inside, other=0.0)
        gs = tl.load(g + row[:, None] * g_t + column[None, :] * g_k, mask=inside, other=0.0).to(tl.float32)
        gs = tl.where(gs < FLOOR, FLOOR, gs) * LOG2_E
        q32, k32 = qs.to(tl.float32), ks.to(tl.float32)
        if BONUS:
            own = q32 * k32 * tl.load(u + h * K + column, mask=in_k, other=0.0).to(tl.float32)[None, :]
        else:
            own = q32 * k32
        A += tl.where(later == earlier, tl.sum(own, 1)[:, None], 0.0)

        since, until, centred, size = decays(gs, FLAT, LIMIT, LEVELS, SPLIT, PRECISION)
        own_decay = gs if BONUS else 0.0
        at = row[:, None] * K + column[None, :]
        tl.store(
            queries + at, (q32 * tl.exp2(since - own_decay) * scale).to(queries.dtype.element_ty), mask=in_k[None, :]
        )
        tl.store(keys + at, (k32 * tl.exp2(until)).to(keys.dtype.element_ty), mask=in_k[None, :])
        total = tl.sum(gs, 0)
        tl.store(kept + chunk * K + column, total / LOG2_E, mask=in_k)
        strongest = tl.maximum(strongest, tl.max(-total, 0))

        X = (q32 * tl.exp2(centred - own_decay)).to(qs.dtype)
        pairs = tl.dot(X, tl.trans((k32 * tl.exp2(-centred)).to(qs.dtype)), input_precision=PRECISION)
        if FLAT:
            A += tl.where(later > earlier, pairs, 0.0)
        else:
            A += tl.where(((later ^ earlier) >> size == 0) & (later > earlier), pairs, 0.0)
        for level in range(size, LEVELS):
            decay = tl.exp2(sums(from_boundary(later, earlier, level, BONUS), gs, SPLIT, PRECISION))
            X = (tl.where((later >> level) & 1 == 1, qs, ks).to(tl.float32) * decay).to(qs.dtype)
            pairs = tl.dot(X, tl.trans(X), input_precision=PRECISION)
            A += tl.where(((later ^ earlier) >> level == 1) & (later > earlier), pairs, 0.0)
    tl.store(scores + chunk * C * C + later * C + earlier, (A * scale).to(scores.dtype.element_ty))
    if FLAT:
        tl.store(steep + chunk, (strongest > 2 * LIMIT).to(tl.int8))

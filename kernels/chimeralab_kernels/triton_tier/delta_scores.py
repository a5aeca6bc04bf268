"""What the delta rule's scan needs of each chunk, as Triton kernels; docs/kernels.md has the equations."""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.gla_scan import FLOOR, place
from chimeralab_kernels.triton_tier.halves import halves


@jit
def delta_scores(
    q, k,  # B T G K
    g, beta,  # B T H
    overlaps, scores,  # B·H chunks C C: A in float32, P
    reads, writes,  # B·H chunks C
    table,  # chunks 2: where packed sequences have their chunks
    q_b, q_t, q_h, k_b, k_t, k_h, g_b, g_t, g_h, beta_b, beta_t, beta_h,  # strides
    T, H, chunks, group_heads, scale,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    DECAYS: tl.constexpr, BETAS: tl.constexpr,
    OVERLAPS: tl.constexpr,  # write A
    PACKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """With one decay, or none, a token and head: A, P, exp(G_t) and β_s exp(G_C − G_s)."""
    at = tl.program_id(0).to(tl.int64)
    head = at // chunks
    b, h = head // H, head % H
    row = tl.arange(0, C)
    first, stop = place(table, at % chunks, T, C, PACKED)
    first = first.to(tl.int64)
    t = first + row
    column = tl.arange(0, BK)
    live = t < stop
    inside = live[:, None] & (column < K)[None, :]
    keys = tl.load(k + b * k_b + h // group_heads * k_h + t[:, None] * k_t + column[None, :], mask=inside, other=0.0)
    queries = tl.load(q + b * q_b + h // group_heads * q_h + t[:, None] * q_t + column[None, :], mask=inside, other=0.0)
    to_end = tl.full([C], 1.0, tl.float32)
    from_start = to_end
    factor = tl.where(row[:, None] >= row[None, :], 1.0, 0.0)
    if DECAYS:
        decay = tl.load(g + b * g_b + h * g_h + t * g_t, mask=live, other=0.0).to(tl.float32)
        decay = tl.where(decay < FLOOR, FLOOR, decay)
        G = tl.cumsum(decay, 0)
        factor = tl.exp(tl.where(row[:, None] >= row[None, :], G[:, None] - G[None, :], -float("inf")))
        from_start = tl.exp(G)
        to_end = tl.exp(tl.sum(decay, 0) - G)
    if BETAS:
        weight = tl.load(beta + b * beta_b + h * beta_h + t * beta_t, mask=live, other=0.0).to(tl.float32)
        factor *= weight[None, :]
        to_end *= weight
    cell = at * C * C + row[:, None] * C + row[None, :]
    if OVERLAPS:
        met = tl.dot(keys, tl.trans(keys), input_precision=PRECISION) * factor
        tl.store(overlaps + cell, met)
    seen = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (factor * scale)
    tl.store(scores + cell, seen.to(scores.dtype.element_ty))
    tl.store(reads + at * C + row, from_start)
    tl.store(writes + at * C + row, to_end)


@jit
def invert_systems(A, inverse, C: tl.constexpr, HALVES: tl.constexpr):
    """(I + A)⁻¹ − I of each A: C C, of which only what stands below the diagonal counts; C = 16 or 64.

    With HALVES each is 2 C C, the sum of two.

    Blocks of 16 by forward substitution, then the blocks below them, in float32 throughout. No power of A is taken:
    repeated keys with β near 2 do no harm. One program of one warp: one matrix. Above the diagonal A is overwritten.
    """
    at = tl.program_id(0).to(tl.int64) * C * C
    A += at
    inverse += 2 * at if HALVES else at
    row = tl.arange(0, 16)
    column = tl.arange(0, C)
    block = column // 16
    units = tl.where(row[:, None] == column[None, :] % 16, 1.0, 0.0)
    X = units  # the diagonal blocks side by side
    for i in tl.static_range(1, 16):
        here = A + block[None, :] * 16 * (C + 1) + i * C + row[:, None]
        weights = tl.load(here, mask=(row[:, None] < i) & (column[None, :] < C), other=0.0)
        X -= tl.where(row[:, None] == i, tl.sum(weights * X, 0)[None, :], 0.0)
    if C == 16:
        tl.store(inverse + row[:, None] * C + column[None, :], (X - units).to(inverse.dtype.element_ty))
    else:
        # Through memory, as blocks of their own, above the diagonal: (0, 1), (0, 2), (0, 3) and (1, 2).
        place = tl.where(block < 3, (block + 1) * 16, 16 * C + 32) + column % 16
        tl.store(A + row[:, None] * C + place[None, :], X)
        tl.debug_barrier()
        X00 = tl.load(_block(A, 0, 1, C))
        X11 = tl.load(_block(A, 0, 2, C))
        X22 = tl.load(_block(A, 0, 3, C))
        X33 = tl.load(_block(A, 1, 2, C))
        A21 = tl.load(_block(A, 2, 1, C))
        A32 = tl.load(_block(A, 3, 2, C))
        A31 = tl.load(_block(A, 3, 1, C))
        X10 = -_product(X11, _product(tl.load(_block(A, 1, 0, C)), X00))
        X21 = -_product(X22, _product(A21, X11))
        X32 = -_product(X33, _product(A32, X22))
        X20 = -_product(X22, _product(tl.load(_block(A, 2, 0, C)), X00) + _product(A21, X10))
        X31 = -_product(X33, _product(A31, X11) + _product(A32, X21))
        met = _product(tl.load(_block(A, 3, 0, C)), X00) + _product(A31, X10)
        X30 = -_product(X33, met + _product(A32, X20))
        unit = tl.where(row[:, None] == row[None, :], 1.0, 0.0)
        _put(inverse, 0, 0, C, X00 - unit, HALVES)
        _put(inverse, 1, 0, C, X10, HALVES)
        _put(inverse, 1, 1, C, X11 - unit, HALVES)
        _put(inverse, 2, 0, C, X20, HALVES)
        _put(inverse, 2, 1, C, X21, HALVES)
        _put(inverse, 2, 2, C, X22 - unit, HALVES)
        _put(inverse, 3, 0, C, X30, HALVES)
        _put(inverse, 3, 1, C, X31, HALVES)
        _put(inverse, 3, 2, C, X32, HALVES)
        _put(inverse, 3, 3, C, X33 - unit, HALVES)
        for i in tl.static_range(3):
            for j in tl.static_range(1, 4):
                if j > i:
                    _put(inverse, i, j, C, X00 * 0.0, HALVES)


@jit
def _block(matrix, i: tl.constexpr, j: tl.constexpr, C: tl.constexpr):
    row = tl.arange(0, 16)
    return matrix + (i * 16 + row)[:, None] * C + (j * 16 + row)[None, :]


@jit
def _put(matrix, i: tl.constexpr, j: tl.constexpr, C: tl.constexpr, X, HALVES: tl.constexpr):
    if HALVES:
        high, low = halves(X)
        tl.store(_block(matrix, i, j, C), high)
        tl.store(_block(matrix + C * C, i, j, C), low)
    else:
        tl.store(_block(matrix, i, j, C), X.to(matrix.dtype.element_ty))


@jit
def _product(X, Y):
    return tl.dot(X, Y, input_precision="tf32x3")

"""Triton kernels of Taylor linear attention; docs/kernels.md has the algorithm.

Raw features are products of two factors, each 1 or a channel: f = 0 is 1 · 1, then 1 · x_i, then x_i x_j for i ≤ j.
A product with zeros and ones picks a block of them, so that they are made in registers and never written. What they
weigh, w = 1, c, c² (c²/2 where i = j) for c = 1/√F, multiplies what reads a state.

Letters: F channels, with zeros to fill, BF features of a block, R features with zeros to fill a block,
N chunks, C tokens a chunk.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit


@jit
def sides(f, F: tl.constexpr):
    """The channels whose product feature f is: -1 stands for the factor 1, -2 for none."""
    pair = f - 1 - F
    i = tl.zeros_like(f)
    for m in tl.static_range(1, F):
        i += (pair >= m * F - m * (m - 1) // 2).to(tl.int32)
    j = pair - (i * F - i * (i - 1) // 2) + i
    first = tl.where(pair >= 0, i, f - 1)
    second = tl.where(pair >= 0, j, -1)
    return tl.where(f < 1 + F + F * (F + 1) // 2, first, -2), second


@jit
def weight(first, second, c):
    of_pair = tl.where(first == second, 0.5 * c * c, c * c)
    return tl.where(second >= 0, of_pair, tl.where(first >= 0, c, 1.0))


@jit
def factor(x, side, F: tl.constexpr, PRECISION: tl.constexpr):
    """tokens BF: for each feature the channel of x, or 1."""
    pick = (tl.arange(0, F)[:, None] == side[None, :]).to(x.dtype)
    return tl.dot(x, pick, input_precision=PRECISION) + (side == -1).to(tl.float32)[None, :]


@jit
def factor_turned(x, side, F: tl.constexpr, PRECISION: tl.constexpr):
    """BF tokens. Turning the product's result over is what Triton 3.4 to 3.7.0 compile wrongly for Hopper's wgmma."""
    pick = (side[:, None] == tl.arange(0, F)[None, :]).to(x.dtype)
    return tl.dot(pick, tl.trans(x), input_precision=PRECISION) + (side == -1).to(tl.float32)[:, None]


@jit
def through(slope, left, right, first, second, dtype: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient of x from that of its features: tokens F."""
    to_first = (first[:, None] == tl.arange(0, F)[None, :]).to(dtype)
    to_second = (second[:, None] == tl.arange(0, F)[None, :]).to(dtype)
    dx = tl.dot((slope * right).to(dtype), to_first, input_precision=PRECISION)
    return tl.dot((slope * left).to(dtype), to_second, dx, input_precision=PRECISION)


@jit
def moments(
    x,  # B T H F
    y,  # B T H V
    r,  # B H T: multiplies y; absent in the forward pass
    e,  # B H T: what stands beside y, 1 in the forward pass
    M,  # B·H N R V: Σ φ(x) r y over each chunk
    m,  # B·H N R: Σ φ(x) e
    x_b, x_t, x_h, y_b, y_t, y_h, T, H, N,
    F: tl.constexpr, V: tl.constexpr, R: tl.constexpr, BF: tl.constexpr,
    C: tl.constexpr, BT: tl.constexpr, SCALED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0) % (R // BF)
    n = tl.program_id(0) // (R // BF) % N
    head = (tl.program_id(0) // (R // BF) // N).to(tl.int64)
    b, h = head // H, head % H
    f = block * BF + tl.arange(0, BF)
    first, second = sides(f, F)
    column, channel = tl.arange(0, V), tl.arange(0, F)
    x += b * x_b + h * x_h + channel[None, :]
    y += b * y_b + h * y_h + column[None, :]
    total = tl.zeros([BF, V], tl.float32)
    beside = tl.zeros([BF, BT], tl.float32)
    for i in range(0, C, BT):
        t = (n * C + i + tl.arange(0, BT)).to(tl.int64)
        live = t < T
        xs = tl.load(x + t[:, None] * x_t, mask=live[:, None], other=0.0)
        ys = tl.load(y + t[:, None] * y_t, mask=live[:, None], other=0.0)
        features = factor_turned(xs, first, F, PRECISION) * factor_turned(xs, second, F, PRECISION)
        if SCALED:
            beside += features * tl.load(e + head * T + t, mask=live, other=0.0)[None, :]
            features *= tl.load(r + head * T + t, mask=live, other=0.0)[None, :]
        else:
            beside += tl.where(live[None, :], features, 0.0)
        total = tl.dot(features.to(ys.dtype), ys, total, input_precision=PRECISION)
    M += ((head * N + n) * R + f[:, None]) * V + column[None, :]
    tl.store(M, total.to(M.dtype.element_ty))
    tl.store(m + (head * N + n) * R + f, tl.sum(beside, 1))


@jit
def running(
    M,  # rows N E
    start,  # rows E
    before,  # rows N E: the sum up to each chunk
    end,  # rows E: the sum of all
    N, E: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
    BACKWARDS: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) // (E // BE)).to(tl.int64)
    e = tl.program_id(0) % (E // BE) * BE + tl.arange(0, BE)
    total = tl.zeros([BE], tl.float32)
    if STARTS:
        total = tl.load(start + row * E + e)
    for done in range(0, N, U):
        found = ()
        for i in tl.static_range(U):
            n = N - 1 - done - i if BACKWARDS else done + i
            there = (n >= 0) & (n < N)
            found = found + (tl.load(M + (row * N + n) * E + e, mask=e < tl.where(there, E, 0), other=0.0),)  # noqa: RUF005
        for i in tl.static_range(U):
            n = N - 1 - done - i if BACKWARDS else done + i
            there = (n >= 0) & (n < N)
            tl.store(before + (row * N + n) * E + e, total.to(before.dtype.element_ty), mask=e < tl.where(there, E, 0))
            total += found[i].to(tl.float32)
    tl.store(end + row * E + e, total)


@jit(do_not_specialize=["starts"])
def outputs(
    q,  # B T H F
    k,  # B T H F
    v,  # B T H V
    S,  # B·H N R V: the moments before each chunk
    s,  # B·H N R
    y,  # B T H V
    kept,  # B T H V: y in float32, for the backward pass
    z,  # B H T: what y is divided by
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, T, H, N, c, starts,
    F: tl.constexpr, V: tl.constexpr, R: tl.constexpr, BF: tl.constexpr,
    C: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, KEEPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BQ queries of one head."""
    blocks = tl.cdiv(T, BQ)
    begin = tl.program_id(0) % blocks * BQ
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = head // H, head % H
    n = begin // C
    column, channel = tl.arange(0, V), tl.arange(0, F)
    t = (begin + tl.arange(0, BQ)).to(tl.int64)
    live = t < T
    queries = tl.load(q + b * q_b + h * q_h + t[:, None] * q_t + channel[None, :], mask=live[:, None], other=0.0)
    k += b * k_b + h * k_h + channel[None, :]
    v += b * v_b + h * v_h + column[None, :]
    total = tl.zeros([BQ, V], tl.float32)
    divisor = tl.zeros([BQ], tl.float32)
    features_met = tl.where((n > 0) | (starts > 0), R, 0)
    for start in range(0, features_met, BF):
        f = start + tl.arange(0, BF)
        first, second = sides(f, F)
        features = factor(queries, first, F, PRECISION) * factor(queries, second, F, PRECISION)
        features *= weight(first, second, c)[None, :]
        state = tl.load(S + ((head * N + n) * R + f[:, None]) * V + column[None, :])
        divisor += tl.sum(features * tl.load(s + (head * N + n) * R + f)[None, :], 1)
        total = tl.dot(features.to(queries.dtype), state, total, input_precision=PRECISION)
    for i in range(n * C, begin + BQ, BK):
        u = (i + tl.arange(0, BK)).to(tl.int64)
        there = (u < T)[:, None]
        keys = tl.load(k + u[:, None] * k_t, mask=there, other=0.0)
        values = tl.load(v + u[:, None] * v_t, mask=there, other=0.0)
        x = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * c
        p = tl.where(t[:, None] >= u[None, :], 1.0 + x + 0.5 * x * x, 0.0)
        divisor += tl.sum(p, 1)
        total = tl.dot(p.to(values.dtype), values, total, input_precision=PRECISION)
    total /= divisor[:, None]
    at = ((b * T + t[:, None]) * H + h) * V + column[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=live[:, None])
    if KEEPS:
        tl.store(kept + at, total, mask=live[:, None])
    tl.store(z + head * T + t, divisor, mask=live)


@jit
def slopes(
    y,  # B T H V
    dy,  # B T H V
    z,  # B H T
    r,  # B H T: 1/z
    e,  # B H T: the gradient of z
    d_b, d_t, d_h, T, H,
    V: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(T, BT)
    t = (tl.program_id(0) % blocks * BT + tl.arange(0, BT)).to(tl.int64)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = head // H, head % H
    live = t < T
    column = tl.arange(0, V)
    ys = tl.load(y + ((b * T + t[:, None]) * H + h) * V + column[None, :], mask=live[:, None], other=0.0)
    ds = tl.load(dy + b * d_b + h * d_h + t[:, None] * d_t + column[None, :], mask=live[:, None], other=0.0)
    inverse = 1.0 / tl.load(z + head * T + t, mask=live, other=1.0)
    tl.store(r + head * T + t, inverse, mask=live)
    tl.store(e + head * T + t, -inverse * tl.sum(ys.to(tl.float32) * ds.to(tl.float32), 1), mask=live)

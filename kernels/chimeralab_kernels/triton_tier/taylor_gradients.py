"""The gradients of Taylor linear attention, for queries and for keys and values.

With r = 1/z and e = −(y·dy)/z the gradient of a weight p_ts is r_t dy_t·v_s + e_t, and of its x_ts that times 1 + x_ts.
S, s are the moments of keys and values before a chunk; D, d those of queries, r dy and e after it.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.taylor_kernels import factor, sides, through, weight


@jit(do_not_specialize=["starts"])
def gradient_of_queries(
    q, k, v, dy, r, e, S, s,
    dq,  # B T H F
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, d_b, d_t, d_h, T, H, N, c, starts,
    F: tl.constexpr, V: tl.constexpr, R: tl.constexpr, BF: tl.constexpr,
    C: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
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
    slope = tl.load(dy + b * d_b + h * d_h + t[:, None] * d_t + column[None, :], mask=live[:, None], other=0.0)
    inverse = tl.load(r + head * T + t, mask=live, other=0.0)
    aside = tl.load(e + head * T + t, mask=live, other=0.0)
    k += b * k_b + h * k_h + channel[None, :]
    v += b * v_b + h * v_h + column[None, :]
    total = tl.zeros([BQ, F], tl.float32)
    features_met = tl.where((n > 0) | (starts > 0), R, 0)
    for start in range(0, features_met, BF):
        f = start + tl.arange(0, BF)
        first, second = sides(f, F)
        left, right = factor(queries, first, F, PRECISION), factor(queries, second, F, PRECISION)
        state = tl.load(S + ((head * N + n) * R + f[:, None]) * V + column[None, :])
        beside = tl.load(s + (head * N + n) * R + f)
        d_features = tl.dot(slope, tl.trans(state), input_precision=PRECISION) * inverse[:, None]
        d_features = (d_features + aside[:, None] * beside[None, :]) * weight(first, second, c)[None, :]
        total += through(d_features, left, right, first, second, queries.dtype, F, PRECISION)
    for i in range(n * C, begin + BQ, BK):
        u = (i + tl.arange(0, BK)).to(tl.int64)
        there = (u < T)[:, None]
        keys = tl.load(k + u[:, None] * k_t, mask=there, other=0.0)
        values = tl.load(v + u[:, None] * v_t, mask=there, other=0.0)
        x = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * c
        dp = tl.dot(slope, tl.trans(values), input_precision=PRECISION) * inverse[:, None] + aside[:, None]
        dx = tl.where(t[:, None] >= u[None, :], dp * (1.0 + x) * c, 0.0)
        total = tl.dot(dx.to(keys.dtype), keys, total, input_precision=PRECISION)
    dq += ((b * T + t[:, None]) * H + h) * F + channel[None, :]
    tl.store(dq, total.to(dq.dtype.element_ty), mask=live[:, None])


@jit(do_not_specialize=["ends"])
def gradient_of_keys(
    q, k, v, dy, r, e, D, d,
    dk,  # B T H F
    dv,  # B T H V
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, d_b, d_t, d_h, T, H, N, c, ends,
    F: tl.constexpr, V: tl.constexpr, R: tl.constexpr, BF: tl.constexpr,
    C: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BK keys of one head."""
    blocks = tl.cdiv(T, BK)
    begin = tl.program_id(0) % blocks * BK
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = head // H, head % H
    n = begin // C
    column, channel = tl.arange(0, V), tl.arange(0, F)
    u = (begin + tl.arange(0, BK)).to(tl.int64)
    live = u < T
    keys = tl.load(k + b * k_b + h * k_h + u[:, None] * k_t + channel[None, :], mask=live[:, None], other=0.0)
    values = tl.load(v + b * v_b + h * v_h + u[:, None] * v_t + column[None, :], mask=live[:, None], other=0.0)
    q += b * q_b + h * q_h + channel[None, :]
    dy += b * d_b + h * d_h + column[None, :]
    r += head * T
    e += head * T
    of_keys = tl.zeros([BK, F], tl.float32)
    of_values = tl.zeros([BK, V], tl.float32)
    features_met = tl.where((n < N - 1) | (ends > 0), R, 0)
    for start in range(0, features_met, BF):
        f = start + tl.arange(0, BF)
        first, second = sides(f, F)
        weights = weight(first, second, c)[None, :]
        left, right = factor(keys, first, F, PRECISION), factor(keys, second, F, PRECISION)
        state = tl.load(D + ((head * N + n) * R + f[:, None]) * V + column[None, :])
        beside = tl.load(d + (head * N + n) * R + f)
        of_values = tl.dot((left * right * weights).to(keys.dtype), state, of_values, input_precision=PRECISION)
        d_features = (tl.dot(values, tl.trans(state), input_precision=PRECISION) + beside[None, :]) * weights
        of_keys += through(d_features, left, right, first, second, keys.dtype, F, PRECISION)
    stop = tl.minimum(n * C + C, T)
    for i in range(begin // BQ * BQ, stop, BQ):
        t = (i + tl.arange(0, BQ)).to(tl.int64)
        there = t < T
        queries = tl.load(q + t[:, None] * q_t, mask=there[:, None], other=0.0)
        slope = tl.load(dy + t[:, None] * d_t, mask=there[:, None], other=0.0)
        inverse = tl.load(r + t, mask=there, other=0.0)
        aside = tl.load(e + t, mask=there, other=0.0)
        sees = t[None, :] >= u[:, None]
        x = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * c
        p = tl.where(sees, (1.0 + x + 0.5 * x * x) * inverse[None, :], 0.0)
        of_values = tl.dot(p.to(slope.dtype), slope, of_values, input_precision=PRECISION)
        dp = tl.dot(values, tl.trans(slope), input_precision=PRECISION) * inverse[None, :] + aside[None, :]
        dx = tl.where(sees, dp * (1.0 + x) * c, 0.0)
        of_keys = tl.dot(dx.to(queries.dtype), queries, of_keys, input_precision=PRECISION)
    dk += ((b * T + u[:, None]) * H + h) * F + channel[None, :]
    dv += ((b * T + u[:, None]) * H + h) * V + column[None, :]
    tl.store(dk, of_keys.to(dk.dtype.element_ty), mask=live[:, None])
    tl.store(dv, of_values.to(dv.dtype.element_ty), mask=live[:, None])

"""Products of polynomials modulo z^N − e^{−2πiφ} as matrix products: one program for one channel's N numbers.

With n = p Q + q and frequencies a + P b, a transform is a product with a P × P matrix, a twiddle, and a product with a
Q × Q matrix; φ turns the first matrix and the twiddle. docs/kernels.md says how a convolution is made of these.
Half precision is float16 inside, each operand divided by its largest number first.
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit

HIGHEST = tl.constexpr(
    32768.0
)  # what no intermediate number exceeds when no input exceeds 1: half of float16's largest


@jit
def tables(first, twiddle, second, part, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr):
    """cos and sin of both matrices and of the twiddle."""
    p, q = tl.arange(0, P), tl.arange(0, Q)
    at = part * 2 * P * P + p[:, None] * P + p[None, :]
    c1, s1 = tl.load(first + at), tl.load(first + P * P + at)
    at = part * 2 * N + p[:, None] * Q + q[None, :]
    cw, sw = tl.load(twiddle + at), tl.load(twiddle + N + at)
    at = q[:, None] * Q + q[None, :]
    return c1, s1, cw, sw, tl.load(second + at), tl.load(second + Q * Q + at)


@jit
def transform(xr, xi, c1, s1, cw, sw, c2, s2, COMPLEX: tl.constexpr, PRECISION: tl.constexpr):
    """P Q numbers to as many frequencies, in float32."""
    xr = xr.to(c1.dtype)
    ur = tl.dot(c1, xr, input_precision=PRECISION)
    ui = -tl.dot(s1, xr, input_precision=PRECISION)
    if COMPLEX:
        xi = xi.to(c1.dtype)
        ur = tl.dot(s1, xi, ur, input_precision=PRECISION)
        ui = tl.dot(c1, xi, ui, input_precision=PRECISION)
    vr, vi = (ur * cw + ui * sw).to(c1.dtype), (ui * cw - ur * sw).to(c1.dtype)
    fr = tl.dot(vi, s2, tl.dot(vr, c2, input_precision=PRECISION), input_precision=PRECISION)
    fi = tl.dot(vi, c2, input_precision=PRECISION) - tl.dot(vr, s2, input_precision=PRECISION)
    return fr, fi


@jit
def back(fr, fi, c1, s1, cw, sw, c2, s2, COMPLEX: tl.constexpr, PRECISION: tl.constexpr):
    """N times the numbers that have these frequencies; without COMPLEX their real part alone, twice."""
    fr, fi = fr.to(c1.dtype), fi.to(c1.dtype)
    vr = tl.dot(fr, c2, input_precision=PRECISION) - tl.dot(fi, s2, input_precision=PRECISION)
    vi = tl.dot(fr, s2, tl.dot(fi, c2, input_precision=PRECISION), input_precision=PRECISION)
    ur, ui = (vr * cw - vi * sw).to(c1.dtype), (vi * cw + vr * sw).to(c1.dtype)
    c1, s1 = tl.trans(c1), tl.trans(s1)
    xr = tl.dot(c1, ur, input_precision=PRECISION) - tl.dot(s1, ui, input_precision=PRECISION)
    xi = xr
    if COMPLEX:
        xi = tl.dot(s1, ur, tl.dot(c1, ui, input_precision=PRECISION), input_precision=PRECISION)
    return xr, xi


@jit
def largest(xr, xi, COMPLEX: tl.constexpr):
    """The largest number, and 1 over it; 1 where all are zero."""
    size = tl.abs(xr)
    if COMPLEX:
        size = tl.maximum(size, tl.abs(xi))
    most = tl.max(tl.max(size, 1), 0)
    most = tl.where(most > 0, most, 1.0)
    return most, 1.0 / most


@jit
def row(x, length, stride, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, COMPLEX: tl.constexpr):
    """N numbers as P × Q; real ones may be fewer, and then zeros follow."""
    at = tl.arange(0, P)[:, None] * Q + tl.arange(0, Q)[None, :]
    if COMPLEX:
        return tl.load(x + at).to(tl.float32), tl.load(x + N + at).to(tl.float32)
    xr = tl.load(x + at * stride, mask=at < length, other=0.0).to(tl.float32)
    return xr, xr


@jit
def keep(x, xr, xi, length, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, COMPLEX: tl.constexpr):
    at = tl.arange(0, P)[:, None] * Q + tl.arange(0, Q)[None, :]
    if COMPLEX:
        tl.store(x + at, xr.to(x.dtype.element_ty))
        tl.store(x + N + at, xi.to(x.dtype.element_ty))
    else:
        tl.store(x + at, xr.to(x.dtype.element_ty), mask=at < length)


@jit
def convolve(
    x,  # D B G 2 N; D B T where G is 1
    kernel,  # D G 2 N; D L where G is 1
    y,  # as x
    first, twiddle, second,  # the tables
    k_d, k_l, B, T, taps, G,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, COMPLEX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: a channel's part g, for the whole batch."""
    d, g = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    width = 2 * N if COMPLEX else T
    c1, s1, cw, sw, c2, s2 = tables(first, twiddle, second, g, N, P, Q)
    kr, ki = row(kernel + d * k_d + g * 2 * N, taps, k_l, N, P, Q, COMPLEX)
    most_k, scale = largest(kr, ki, COMPLEX)
    kr, ki = transform(kr * scale, ki * scale, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
    kr, ki = kr * (HIGHEST / (N * N)), ki * (HIGHEST / (N * N))
    for b in range(B):
        at = ((d * B + b) * G + g) * width
        xr, xi = row(x + at, T, 1, N, P, Q, COMPLEX)
        most, scale = largest(xr, xi, COMPLEX)
        xr, xi = transform(xr * scale, xi * scale, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
        yr, yi = xr * kr - xi * ki, xr * ki + xi * kr
        yr, yi = back(yr, yi, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
        scale = most * most_k * (N / HIGHEST)
        keep(y + at, yr * scale, yi * scale, T, N, P, Q, COMPLEX)


@jit
def correlate(
    x,  # D B G 2 N; D B T where G is 1
    dy,  # as x
    kernel,  # D G 2 N; D L where G is 1
    dx,  # as x
    d_kernel,  # as kernel
    first, twiddle, second,
    k_d, k_l, B, T, taps, G,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, COMPLEX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of `convolve`: a product with a conjugate shifts the other way."""
    d, g = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    width = 2 * N if COMPLEX else T
    c1, s1, cw, sw, c2, s2 = tables(first, twiddle, second, g, N, P, Q)
    kr, ki = row(kernel + d * k_d + g * 2 * N, taps, k_l, N, P, Q, COMPLEX)
    most_k, scale = largest(kr, ki, COMPLEX)
    kr, ki = transform(kr * scale, ki * scale, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
    kr, ki = kr * (HIGHEST / (N * N)), ki * (HIGHEST / (N * N))
    total_r, total_i = tl.zeros([P, Q], tl.float32), tl.zeros([P, Q], tl.float32)
    for b in range(B):
        at = ((d * B + b) * G + g) * width
        dr, di = row(dy + at, T, 1, N, P, Q, COMPLEX)
        most_d, scale = largest(dr, di, COMPLEX)
        dr, di = transform(dr * scale, di * scale, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
        xr, xi = row(x + at, T, 1, N, P, Q, COMPLEX)
        most_x, scale = largest(xr, xi, COMPLEX)
        xr, xi = transform(xr * scale, xi * scale, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
        scale = most_d * most_x
        total_r += (dr * xr + di * xi) * scale
        total_i += (di * xr - dr * xi) * scale
        xr, xi = dr * kr + di * ki, di * kr - dr * ki
        xr, xi = back(xr, xi, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
        scale = most_d * most_k * (N / HIGHEST)
        keep(dx + at, xr * scale, xi * scale, T, N, P, Q, COMPLEX)
    # The largest frequency as large as no sum of P Q of them may exceed.
    most, scale = largest(total_r, total_i, True)
    scale *= HIGHEST / (2 * N)
    kr, ki = back(total_r * scale, total_i * scale, c1, s1, cw, sw, c2, s2, COMPLEX, PRECISION)
    scale = most * 2 / HIGHEST
    keep(d_kernel + (d * G + g) * (2 * N if COMPLEX else taps), kr * scale, ki * scale, taps, N, P, Q, COMPLEX)


@jit
def split(
    x,  # B T D
    gate,  # B T D: multiplies x
    parts,  # D B G 2 N; D B T where G is 1
    matrix,  # R GP: cosines, then sines, of what a part takes of each N tokens
    x_b, x_t, x_d, g_b, g_t, g_d, B, T, D,
    N: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, R: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr, GATED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BD channels of BT tokens, of each of the G stretches of N tokens."""
    tiles = (N + BT - 1) // BT
    tile = tl.program_id(0) % tiles
    channel = tl.program_id(0) // tiles % tl.cdiv(D, BD) * BD + tl.arange(0, BD).to(tl.int64)
    b = (tl.program_id(0) // tiles // tl.cdiv(D, BD)).to(tl.int64)
    stretch, i = tl.arange(0, GP), tile * BT + tl.arange(0, BT)
    t = (stretch[:, None] * N + i[None, :]).to(tl.int64)
    inside = ((stretch[:, None] < G) & (i[None, :] < N) & (t < T))[:, :, None] & (channel < D)[None, None, :]
    t, channels = t[:, :, None], channel[None, None, :]
    value = tl.load(x + b * x_b + t * x_t + channels * x_d, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        value *= tl.load(gate + b * g_b + t * g_t + channels * g_d, mask=inside, other=0.0).to(tl.float32)
    if G > 1:
        side = tl.arange(0, R)
        turns = tl.load(matrix + side[:, None] * GP + stretch[None, :])
        value = tl.dot(turns, tl.reshape(value, (GP, BT * BD)), input_precision=PRECISION)
        value = tl.permute(tl.reshape(value, (R, BT, BD)), (0, 2, 1))
        at = ((channel[:, None] * B + b) * G * 2 * N + i[None, :])[None, :, :] + (side * N)[:, None, None]
        there = (side < 2 * G)[:, None, None] & ((channel < D)[:, None] & (i < N)[None, :])[None, :, :]
    else:
        value = tl.permute(value, (0, 2, 1))
        at = ((channel[:, None] * B + b) * T + i[None, :])[None, :, :]
        there = ((channel < D)[:, None] & (i < tl.minimum(T, N))[None, :])[None, :, :]
    tl.store(parts + at, value.to(parts.dtype.element_ty), mask=there)


@jit
def join(  # noqa: PLR0915
    parts,  # D B G 2 N; D B T where G is 1
    matrix,  # GP R
    x,  # B T D; backwards dy
    skip,  # D
    gate,  # B T D
    mixed,  # B T D: the convolution, before skip and gate; backwards read
    y,  # B T D; backwards dx
    inputs,  # backwards, B T D: x
    d_gate,  # backwards, B T D
    d_skip,  # backwards, programs D: a share of each
    x_b, x_t, x_d, g_b, g_t, g_d, i_b, i_t, i_d, y_b, y_t, y_d, B, T, D,
    N: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, R: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr, SKIPS: tl.constexpr, GATED: tl.constexpr, KEEPS: tl.constexpr,
    BACKWARDS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The way back from `split`, with skip and gate, or their gradients."""
    tiles = (N + BT - 1) // BT
    tile = tl.program_id(0) % tiles
    channel = tl.program_id(0) // tiles % tl.cdiv(D, BD) * BD + tl.arange(0, BD).to(tl.int64)
    b = (tl.program_id(0) // tiles // tl.cdiv(D, BD)).to(tl.int64)
    stretch, i = tl.arange(0, GP), tile * BT + tl.arange(0, BT)
    if G > 1:
        side = tl.arange(0, R)
        at = ((channel[:, None] * B + b) * G * 2 * N + i[None, :])[None, :, :] + (side * N)[:, None, None]
        there = (side < 2 * G)[:, None, None] & ((channel < D)[:, None] & (i < N)[None, :])[None, :, :]
        value = tl.permute(tl.load(parts + at, mask=there, other=0.0).to(tl.float32), (0, 2, 1))
        turns = tl.load(matrix + stretch[:, None] * R + side[None, :])
        value = tl.dot(turns, tl.reshape(value, (R, BT * BD)), input_precision=PRECISION)
        value = tl.reshape(value, (GP, BT, BD))
    else:
        at = ((channel[:, None] * B + b) * T + i[None, :])[None, :, :]
        there = ((channel < D)[:, None] & (i < tl.minimum(T, N))[None, :])[None, :, :]
        value = tl.permute(tl.load(parts + at, mask=there, other=0.0).to(tl.float32), (0, 2, 1))
    t = (stretch[:, None] * N + i[None, :]).to(tl.int64)
    inside = ((stretch[:, None] < G) & (i[None, :] < N) & (t < T))[:, :, None] & (channel < D)[None, None, :]
    t, channels = t[:, :, None], channel[None, None, :]
    to_y = b * y_b + t * y_t + channels * y_d
    if KEEPS:
        tl.store(mixed + (b * T + t) * D + channels, value.to(mixed.dtype.element_ty), mask=inside)
    if SKIPS or BACKWARDS:
        xs = tl.load(x + b * x_b + t * x_t + channels * x_d, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        gates = tl.load(gate + b * g_b + t * g_t + channels * g_d, mask=inside, other=0.0).to(tl.float32)
    if SKIPS:
        skips = tl.load(skip + channel, mask=channel < D, other=0.0).to(tl.float32)[None, None, :]
    if BACKWARDS:
        slope = xs
        if GATED:
            slope *= gates
        if SKIPS or GATED:
            own = tl.load(inputs + b * i_b + t * i_t + channels * i_d, mask=inside, other=0.0).to(tl.float32)
        if SKIPS:
            value += skips * slope
            share = tl.sum(tl.sum(slope * own, 0), 0)
            tl.store(d_skip + (b * tiles + tile) * D + channel, share, mask=channel < D)
        if GATED:
            met = tl.load(mixed + (b * T + t) * D + channels, mask=inside, other=0.0).to(tl.float32)
            if SKIPS:
                met += skips * own
            tl.store(d_gate + (b * T + t) * D + channels, (xs * met).to(d_gate.dtype.element_ty), mask=inside)
    else:
        if SKIPS:
            value += skips * xs
        if GATED:
            value *= gates
    tl.store(y + to_y, value.to(y.dtype.element_ty), mask=inside)

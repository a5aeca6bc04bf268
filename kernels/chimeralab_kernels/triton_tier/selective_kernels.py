"""The kernels of Mamba's scan: a block of channels with all its states in registers, from token to token.

Before the gate y_t = h_t C_t + skip ⊙ u_t. With a_t = exp(Δ_t A), S the gradient of h and R_t = a_t ⊙ S_t:

    S_t = dy_t C_tᵀ + R_{t+1}        dB_t = Σ_d Δ_t u_t S_t        dC_t = Σ_d dy_t h_t
    dΔ_t = Σ_n (R_t ⊙ h_{t−1} ⊙ A + S_t B_t u_t)        du_t = Σ_n Δ_t S_t B_t        dA = Σ_t Δ_t R_t ⊙ h_{t−1}
"""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.time_rows import piece, pieces, present, rows

LOG2_E = tl.constexpr(1.4426950408889634)


@jit
def _scaled(step, rate):
    return tl.exp2(step[:, None] * rate)


@jit
def _rates(A, corner, inside):
    """A, for powers of two."""
    return tl.load(A + corner, inside, 0.0).to(tl.float32) * LOG2_E


@jit
def forward(
    u, delta, A, B, C, skip, z, start, y, ends, steps, marks, table, T, segments, length, span,
    u_b, u_t, delta_b, delta_t, B_b, B_t, C_b, C_t, z_b, z_t,
    D: tl.constexpr, N: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, U: tl.constexpr, PACKED: tl.constexpr,
    STARTS: tl.constexpr, SKIPS: tl.constexpr, GATED: tl.constexpr,
    OUTPUT: tl.constexpr,  # write y
    STEPS: tl.constexpr,  # write the sum of Δ over the segment
    MARKS: tl.constexpr,  # write the state before each `span` tokens of a segment into `marks`
):  # fmt: skip
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = (tl.program_id(0) // blocks).to(tl.int64)
    b, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
    n = tl.arange(0, BN)
    corner = channel[:, None] * N + n[None, :]  # of a D N matrix
    inside = (channel < D)[:, None] & (n < N)[None, :]
    place = part * D * N + corner
    rate = _rates(A, corner, inside)
    h = tl.zeros((BD, BN), tl.float32)
    if STARTS:
        h = tl.load(start + place, inside, 0.0).to(tl.float32)
    through = tl.zeros((BD,), tl.float32)
    if SKIPS:
        through = tl.load(skip + channel, channel < D, 0.0).to(tl.float32)
    total = tl.zeros((BD,), tl.float32)
    tokens = length
    if PACKED:
        tokens = (stop - begin).to(tl.int32)
    for done in range(0, tokens, U):
        first = begin + done
        if MARKS:  # noqa: SIM102 - one is of compile time
            if done % span == 0:
                mark = part * tl.cdiv(length, span) + done // span
                tl.store(marks + mark * D * N + corner, h, inside)
        ds = rows(delta + b * delta_b, first, delta_t, 1, channel, begin, stop, D, U, 1)
        us = rows(u + b * u_b, first, u_t, 1, channel, begin, stop, D, U, 1)
        Bs = rows(B + b * B_b, first, B_t, 1, n, begin, stop, N, U, 1)
        Cs = Bs
        zs = us
        if OUTPUT:
            Cs = rows(C + b * C_b, first, C_t, 1, n, begin, stop, N, U, 1)
            if GATED:
                zs = rows(z + b * z_b, first, z_t, 1, channel, begin, stop, D, U, 1)
        for i in tl.static_range(U):
            t = first + i
            step, value = ds[i].to(tl.float32), us[i].to(tl.float32)
            h = _scaled(step, rate) * h + (step * value)[:, None] * Bs[i].to(tl.float32)[None, :]
            if STEPS:
                total += step
            if OUTPUT:
                out = tl.sum(h * Cs[i].to(tl.float32)[None, :], 1) + through * value
                if GATED:
                    gate = zs[i].to(tl.float32)
                    out *= gate * tl.sigmoid(gate)
                tl.store(y + (b * T + t) * D + channel, out, present(channel, t, begin, stop, D))
    tl.store(ends + place, h, inside)
    if STEPS:
        tl.store(steps + part * D + channel, total, channel < D)


@jit
def carry_back(
    dy, delta, A, C, z, carried, steps, table, T, segments, length,
    dy_b, dy_t, delta_b, delta_t, C_b, C_t, z_b, z_t,
    D: tl.constexpr, N: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, U: tl.constexpr, PACKED: tl.constexpr,
    GATED: tl.constexpr,
):  # fmt: skip
    """R at each segment's start, from zero at its end, and the sum of Δ over it."""
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = (tl.program_id(0) // blocks).to(tl.int64)
    b, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
    n = tl.arange(0, BN)
    corner = channel[:, None] * N + n[None, :]
    inside = (channel < D)[:, None] & (n < N)[None, :]
    rate = _rates(A, corner, inside)
    r = tl.zeros((BD, BN), tl.float32)
    total = tl.zeros((BD,), tl.float32)
    tokens = length
    if PACKED:
        tokens = (stop - begin).to(tl.int32)
    for done in range(U, tokens + U, U):
        first = begin + tokens - done
        ds = rows(delta + b * delta_b, first, delta_t, 1, channel, begin, stop, D, U, 1)
        os = rows(dy + b * dy_b, first, dy_t, 1, channel, begin, stop, D, U, 1)
        Cs = rows(C + b * C_b, first, C_t, 1, n, begin, stop, N, U, 1)
        zs = os
        if GATED:
            zs = rows(z + b * z_b, first, z_t, 1, channel, begin, stop, D, U, 1)
        for i in tl.static_range(U - 1, -1, -1):
            step, slope = ds[i].to(tl.float32), os[i].to(tl.float32)
            total += step
            if GATED:
                gate = zs[i].to(tl.float32)
                slope *= gate * tl.sigmoid(gate)
            r = _scaled(step, rate) * (r + slope[:, None] * Cs[i].to(tl.float32)[None, :])
    tl.store(carried + part * D * N + corner, r, inside)
    tl.store(steps + part * D + channel, total, channel < D)


@jit
def backward(  # noqa: PLR0915
    dy, u, delta, A, B, C, skip, z, marks, kept, carried, du, d_delta, dA, dBC, d_skip, dz,
    table, T, segments, length, span, phase,
    dy_b, dy_t, u_b, u_t, delta_b, delta_t, B_b, B_t, C_b, C_t, z_b, z_t,
    D: tl.constexpr, N: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, U: tl.constexpr, PACKED: tl.constexpr,
    SKIPS: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """`span` tokens of each segment: forwards from `marks` to `kept`, then backwards, adding to what later ones left.

    carried: R after the span, on return before it. dA and d_skip grow. dBC: B blocks 2 segments span N, the parts of
    dB and dC. kept: scratch of the program's own.
    """
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = (tl.program_id(0) // blocks).to(tl.int64)
    b, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
    begin += phase * span
    stop = tl.minimum(begin + span, stop)
    tokens = span
    if PACKED:  # a short sequence ends long before the span
        tokens = (tl.maximum(stop - begin, 0).to(tl.int32) + U - 1) // U * U
    n = tl.arange(0, BN)
    corner = channel[:, None] * N + n[None, :]
    inside = (channel < D)[:, None] & (n < N)[None, :]
    place = part * D * N + corner
    states = kept + tl.program_id(0).to(tl.int64) * (span // U) * BD * BN
    states += tl.arange(0, BD)[:, None] * BN + n[None, :]
    rate = _rates(A, corner, inside)
    mark = (part * tl.cdiv(length, span) + phase) * D * N + corner
    reached = (channel < tl.where(begin < stop, D, 0))[:, None] & (n < N)[None, :]  # otherwise nothing was laid down
    h = tl.load(marks + mark, reached, 0.0)
    for done in range(0, tokens, U):
        first = begin + done
        tl.store(states + done // U * BD * BN, h)
        ds = rows(delta + b * delta_b, first, delta_t, 1, channel, begin, stop, D, U, 1)
        us = rows(u + b * u_b, first, u_t, 1, channel, begin, stop, D, U, 1)
        Bs = rows(B + b * B_b, first, B_t, 1, n, begin, stop, N, U, 1)
        for i in tl.static_range(U):
            step = ds[i].to(tl.float32)
            h = _scaled(step, rate) * h + (step * us[i].to(tl.float32))[:, None] * Bs[i].to(tl.float32)[None, :]
    tl.debug_barrier()

    r = tl.load(carried + place, inside, 0.0)
    rate_slope = tl.load(dA + place, inside, 0.0)
    skip_slope = tl.load(d_skip + part * D + channel, channel < D, 0.0)
    through = tl.zeros((BD,), tl.float32)
    if SKIPS:
        through = tl.load(skip + channel, channel < D, 0.0).to(tl.float32)
    own = part - b * segments  # of its batch entry
    to_B = (((b * blocks + tl.program_id(0) % blocks) * 2 * segments + own) * span - begin) * N + n
    to_C = to_B + segments * span * N
    for done in range(U, tokens + U, U):
        first = begin + tokens - done
        ds = rows(delta + b * delta_b, first, delta_t, 1, channel, begin, stop, D, U, 1)
        os = rows(dy + b * dy_b, first, dy_t, 1, channel, begin, stop, D, U, 1)
        us = rows(u + b * u_b, first, u_t, 1, channel, begin, stop, D, U, 1)
        Bs = rows(B + b * B_b, first, B_t, 1, n, begin, stop, N, U, 1)
        Cs = rows(C + b * C_b, first, C_t, 1, n, begin, stop, N, U, 1)
        zs = os
        if GATED:
            zs = rows(z + b * z_b, first, z_t, 1, channel, begin, stop, D, U, 1)
        h = tl.load(states + (tokens - done) // U * BD * BN)
        hs, decays = (h,), ()
        for i in tl.static_range(U):
            step = ds[i].to(tl.float32)
            decay = _scaled(step, rate)
            h = decay * h + (step * us[i].to(tl.float32))[:, None] * Bs[i].to(tl.float32)[None, :]
            hs, decays = hs + (h,), decays + (decay,)  # noqa: RUF005
        for i in tl.static_range(U - 1, -1, -1):
            t = first + i
            step, slope, read = ds[i].to(tl.float32), os[i].to(tl.float32), Cs[i].to(tl.float32)
            value, write = us[i].to(tl.float32), Bs[i].to(tl.float32)
            live = present(channel, t, begin, stop, D)
            at = (b * T + t) * D + channel
            if GATED:
                gate = zs[i].to(tl.float32)
                open = tl.sigmoid(gate)
                out = tl.sum(hs[i + 1] * read[None, :], 1) + through * value
                tl.store(dz + at, slope * out * open * (1 + gate * (1 - open)), live)
                slope *= gate * open
            s = r + slope[:, None] * read[None, :]
            r = decays[i] * s
            written = tl.sum(s * write[None, :], 1)
            past = r * hs[i]
            tl.store(du + at, step * written + through * slope, live)
            tl.store(d_delta + at, tl.sum(past * rate, 1) * (1 / LOG2_E) + value * written, live)
            rate_slope += step[:, None] * past
            skip_slope += slope * value
            counted = present(n, t, begin, stop, N)
            tl.store(dBC + to_B + t * N, tl.sum((step * value)[:, None] * s, 0), counted)
            tl.store(dBC + to_C + t * N, tl.sum(slope[:, None] * hs[i + 1], 0), counted)
    tl.store(carried + place, r, inside)
    tl.store(dA + place, rate_slope, inside)
    tl.store(d_skip + part * D + channel, skip_slope, channel < D)


@jit
def join(
    ends, steps, A, start, met, firsts, segments,
    D: tl.constexpr, N: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
    BACKWARDS: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """The state that each segment meets, from each one's own end and sum of Δ."""
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    sequence = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BN)
    corner = channel[:, None] * N + n[None, :]
    inside = (channel < D)[:, None] & (n < N)[None, :]
    rate = _rates(A, corner, inside)
    h = tl.zeros((BD, BN), tl.float32)
    if STARTS:
        h = tl.load(start + sequence * D * N + corner, inside, 0.0).to(tl.float32)
    first, last = pieces(firsts, sequence, segments, PACKED)
    for i in range(first, last):
        part = first + last - 1 - i if BACKWARDS else i
        place = part * D * N + corner
        tl.store(met + place, h, inside)
        total = tl.load(steps + part * D + channel, channel < D, 0.0)
        h = _scaled(total, rate) * h + tl.load(ends + place, inside, 0.0)

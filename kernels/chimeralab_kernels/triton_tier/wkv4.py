"""RWKV-4's recurrence from token to token, its sums kept with a logarithmic scale of their own.

    n_t = e^w n_{t−1} + e^{k_t} v_t        d_t = e^w d_{t−1} + e^{k_t}
    y_t = (n_{t−1} + e^{u + k_t} v_t) / z_t        z_t = d_{t−1} + e^{u + k_t}

Back through time go the gradients N, D of n and d, and their derivatives N', D' by w, with one scale:

    N_{t−1} = e^w N_t + dy_t / z_t        D_{t−1} = e^w D_t − y_t dy_t / z_t
    N'_{t−1} = e^w (N'_t + N_t)           D'_{t−1} = e^w (D'_t + D_t)
    dv_t = e^{u+k_t} dy_t / z_t + e^{k_t} N_t        dk_t = e^{u+k_t} (v_t − y_t) dy_t / z_t + e^{k_t} (v_t N_t + D_t)
    du = Σ e^{u+k_t} (v_t − y_t) dy_t / z_t          dw = Σ e^{k_t} (v_t N'_t + D'_t)

log z is what the forward pass keeps.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from chimeralab_kernels.packing import check_offsets
from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator
from chimeralab_kernels.triton_tier.launch import unit_stride
from chimeralab_kernels.triton_tier.time_rows import Walk, piece, pieces, present, rows, walk
from chimeralab_kernels.triton_tier.tunings import WKV4

NOTHING = tl.constexpr(-1e30)  # the scale of an empty sum


@jit
def _sums(at, D, channel):
    """Numerator, denominator and scale of a state 3 D."""
    here = channel < D
    num, den = tl.load(at + channel, here, 0.0), tl.load(at + D + channel, here, 0.0)
    top = tl.load(at + 2 * D + channel, here, 0.0).to(tl.float32)
    return num.to(tl.float32), den.to(tl.float32), tl.maximum(top, NOTHING)


@jit
def _forward(
    k, v, decay, bonus, start, y, log_z, ends, table, T, segments, length, k_b, k_t, v_b, v_t,
    D: tl.constexpr, BD: tl.constexpr, U: tl.constexpr, PACKED: tl.constexpr,
    STARTS: tl.constexpr, OUTPUT: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = tl.program_id(0) // blocks
    b, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
    if PACKED:
        length = stop - begin
    here = channel < D
    w = tl.load(decay + channel, here, 0.0).to(tl.float32)
    u = tl.load(bonus + channel, here, 0.0).to(tl.float32)
    num, den = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    top = tl.full((BD,), NOTHING, tl.float32)
    if STARTS:
        num, den, top = _sums(start + part.to(tl.int64) * 3 * D, D, channel)
    for done in range(0, length, U):
        first = begin + done
        ks = rows(k + b * k_b, first, k_t, 1, channel, begin, stop, D, U, 1)
        vs = rows(v + b * v_b, first, v_t, 1, channel, begin, stop, D, U, 1)
        for i in tl.static_range(U):
            t = first + i
            live = present(channel, t, begin, stop, D)
            key, value = ks[i].to(tl.float32), vs[i].to(tl.float32)
            if OUTPUT:
                scale = tl.maximum(top, u + key)
                old, new = tl.exp(top - scale), tl.exp(u + key - scale)
                z = old * den + new
                at = (b * T + t) * D + channel
                tl.store(y + at, (old * num + new * value) / z, live)
                tl.store(log_z + at, scale + tl.log(z), live)
            scale = tl.maximum(top + w, key)
            old, new = tl.exp(top + w - scale), tl.exp(key - scale)
            num = tl.where(live, old * num + new * value, num)
            den = tl.where(live, old * den + new, den)
            top = tl.where(live, scale, top)
    at = ends + part.to(tl.int64) * 3 * D + channel
    tl.store(at, num, here)
    tl.store(at + D, den, here)
    tl.store(at + 2 * D, top, here)


@jit
def _join(
    ends, decay, start, met, firsts, table, T, segments, length,
    D: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """The state that each segment meets."""
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    sequence = tl.program_id(0).to(tl.int64)
    here = channel < D
    w = tl.load(decay + channel, here, 0.0).to(tl.float32)
    num, den = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    top = tl.full((BD,), NOTHING, tl.float32)
    if STARTS:
        num, den, top = _sums(start + sequence * 3 * D, D, channel)
    first, last = pieces(firsts, sequence, segments, PACKED)
    for part in range(first, last):
        at = met + part * 3 * D + channel
        tl.store(at, num, here)
        tl.store(at + D, den, here)
        tl.store(at + 2 * D, top, here)
        own_num, own_den, own_top = _sums(ends + part * 3 * D, D, channel)
        _, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
        top += w * (stop - begin).to(tl.float32)
        scale = tl.maximum(top, own_top)
        old, new = tl.exp(top - scale), tl.exp(own_top - scale)
        num, den, top = old * num + new * own_num, old * den + new * own_den, scale


@jit
def _gradients(at, D, channel):
    """N, D, N', D' and their scale, 5 D."""
    here = channel < D
    n, d = tl.load(at + channel, here, 0.0), tl.load(at + D + channel, here, 0.0)
    n1, d1 = tl.load(at + 2 * D + channel, here, 0.0), tl.load(at + 3 * D + channel, here, 0.0)
    return n, d, n1, d1, tl.load(at + 4 * D + channel, here, 0.0)


@jit
def _store_gradients(at, n, d, n1, d1, p, D, channel):
    here = channel < D
    tl.store(at + channel, n, here)
    tl.store(at + D + channel, d, here)
    tl.store(at + 2 * D + channel, n1, here)
    tl.store(at + 3 * D + channel, d1, here)
    tl.store(at + 4 * D + channel, p, here)


@jit
def _backward(
    dy, y, log_z, k, v, decay, bonus, end, dk, dv, sums, starts, table, T, segments, length,
    dy_b, dy_t, k_b, k_t, v_b, v_t,
    D: tl.constexpr, BD: tl.constexpr, U: tl.constexpr, PACKED: tl.constexpr,
    ENDS: tl.constexpr, OUTPUT: tl.constexpr,
):  # fmt: skip
    """`sums`, B·segments 2 D: each program's share of dw and du."""
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = tl.program_id(0) // blocks
    b, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
    if PACKED:
        length = stop - begin
    here = channel < D
    w = tl.load(decay + channel, here, 0.0).to(tl.float32)
    u = tl.load(bonus + channel, here, 0.0).to(tl.float32)
    n, d = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    n1, d1 = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    p = tl.full((BD,), NOTHING, tl.float32)
    if ENDS:
        n, d, n1, d1, p = _gradients(end + part.to(tl.int64) * 5 * D, D, channel)
    w_sum, u_sum = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    out = b * T * D
    for done in range(0, length, U):
        first = begin + length - 1 - done
        slopes = rows(dy + b * dy_b, first, dy_t, 1, channel, begin, stop, D, U, -1)
        ys = rows(y + out, first, D, 1, channel, begin, stop, D, U, -1)
        zs = rows(log_z + out, first, D, 1, channel, begin, stop, D, U, -1)
        ks, vs = slopes, slopes
        if OUTPUT:
            ks = rows(k + b * k_b, first, k_t, 1, channel, begin, stop, D, U, -1)
            vs = rows(v + b * v_b, first, v_t, 1, channel, begin, stop, D, U, -1)
        for i in tl.static_range(U):
            t = first - i
            live = present(channel, t, begin, stop, D)
            slope, value_out, z = slopes[i].to(tl.float32), ys[i].to(tl.float32), zs[i]
            if OUTPUT:
                key, value = ks[i].to(tl.float32), vs[i].to(tl.float32)
                direct = tl.exp(u + key - z) * slope
                later = tl.where(live, tl.exp(key + p), 0.0)
                through = direct * (value - value_out)
                tl.store(dv + out + t * D + channel, direct + later * n, live)
                tl.store(dk + out + t * D + channel, through + later * (value * n + d), live)
                u_sum += through
                w_sum += later * (value * n1 + d1)
            scale = tl.maximum(p + w, -z)
            old, new = tl.exp(p + w - scale), tl.exp(-z - scale) * slope
            n1, d1 = tl.where(live, old * (n1 + n), n1), tl.where(live, old * (d1 + d), d1)
            n, d = tl.where(live, old * n + new, n), tl.where(live, old * d - new * value_out, d)
            p = tl.where(live, scale, p)
    _store_gradients(starts + part.to(tl.int64) * 5 * D, n, d, n1, d1, p, D, channel)
    if OUTPUT:
        tl.store(sums + part.to(tl.int64) * 2 * D + channel, w_sum, here)
        tl.store(sums + part.to(tl.int64) * 2 * D + D + channel, u_sum, here)


@jit
def _join_backward(
    starts, decay, end, met, firsts, table, T, segments, length,
    D: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr, ENDS: tl.constexpr,
):  # fmt: skip
    """What each segment is given by those after it."""
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    sequence = tl.program_id(0).to(tl.int64)
    w = tl.load(decay + channel, channel < D, 0.0).to(tl.float32)
    n, d = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    n1, d1 = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    p = tl.full((BD,), NOTHING, tl.float32)
    if ENDS:
        n, d, n1, d1, p = _gradients(end + sequence * 5 * D, D, channel)
    first, last = pieces(firsts, sequence, segments, PACKED)
    for i in range(first, last):
        part = first + last - 1 - i
        at = part * 5 * D
        _store_gradients(met + at, n, d, n1, d1, p, D, channel)
        own_n, own_d, own_n1, own_d1, own_p = _gradients(starts + at, D, channel)
        _, begin, stop, _, _, _ = piece(table, part, segments, length, T, PACKED)
        tokens = (stop - begin).to(tl.float32)
        p += w * tokens
        scale = tl.maximum(p, own_p)
        old, new = tl.exp(p - scale), tl.exp(own_p - scale)
        n1, d1 = old * (n1 + tokens * n) + new * own_n1, old * (d1 + tokens * d) + new * own_d1
        n, d, p = old * n + new * own_n, old * d + new * own_d, scale


def wkv4(
    k: Tensor,  # B T D
    v: Tensor,  # B T D
    decay: Tensor,  # D
    bonus: Tensor,  # D
    initial_state: Tensor | None = None,  # B 3 D; packed, one a sequence
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if cu_seqlens is not None:
        check_offsets(cu_seqlens, v)
    y, final, _ = fused_wkv4(k, v, decay, bonus, initial_state, cu_seqlens)
    return y, final


@operator("chimeralab::fused_wkv4")
def fused_wkv4(
    k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor, start: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state and log z."""
    y, _, log_z = _outputs(v, cu_seqlens)
    k, v, start = unit_stride(k), unit_stride(v), None if start is None else start.contiguous()
    decay, bonus = decay.contiguous(), bonus.contiguous()
    (_, T, D), cut = v.shape, _walk(v, cu_seqlens)
    ends = v.new_empty((cut.parts, 3, D), dtype=torch.float32)
    lengths = (cut.table, T, cut.segments, cut.length)
    where = (*lengths, *k.stride()[:2], *v.stride()[:2])
    grid, sizes = (cut.blocks * cut.parts,), {"D": D, "BD": cut.block, "PACKED": cut.packed, "num_warps": 1}
    if cut.joined:
        met = torch.empty_like(ends)
        _forward[grid](
            k, v, decay, bonus, None, y, log_z, ends, *where, **sizes, U=cut.ahead, STARTS=False, OUTPUT=False
        )
        _join[(cut.sequences, cut.blocks)](
            ends, decay, start, met, cut.firsts, *lengths, **sizes, STARTS=start is not None
        )
        start = met
    _forward[grid](
        k, v, decay, bonus, start, y, log_z, ends, *where, **sizes, U=cut.ahead, STARTS=start is not None, OUTPUT=True
    )
    return y, cut.last(ends), log_z


@operator("chimeralab::fused_wkv4_backward")
def fused_wkv4_backward(
    dy: Tensor | None,
    d_final: Tensor | None,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    bonus: Tensor,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    y: Tensor,
    final: Tensor,
    log_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dy = torch.zeros_like(v) if dy is None else unit_stride(dy)
    k, v, w = unit_stride(k), unit_stride(v), decay.contiguous()
    (_, T, D), cut = v.shape, _walk(v, cu_seqlens)
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    sums = v.new_empty((cut.parts, 2, D), dtype=torch.float32)
    starts = v.new_empty((cut.parts, 5, D), dtype=torch.float32)
    end = None
    if d_final is not None:  # N and D, nothing of their derivatives, and the scale of what they multiply
        nothing = torch.zeros_like(d_final[:, :2])
        end = torch.cat([d_final[:, :2], nothing, -final[:, 2:]], 1).contiguous()
    lengths = (cut.table, T, cut.segments, cut.length)
    where = (*lengths, *dy.stride()[:2], *k.stride()[:2], *v.stride()[:2])
    grid, sizes = (cut.blocks * cut.parts,), {"D": D, "BD": cut.block, "PACKED": cut.packed, "num_warps": 1}
    inputs = (dy, y, log_z, k, v, w, bonus.contiguous())
    if cut.joined:
        met = torch.empty_like(starts)
        _backward[grid](*inputs, None, dk, dv, sums, starts, *where, **sizes, U=cut.ahead, ENDS=False, OUTPUT=False)
        _join_backward[(cut.sequences, cut.blocks)](
            starts, w, end, met, cut.firsts, *lengths, **sizes, ENDS=end is not None
        )
        end = met
    _backward[grid](*inputs, end, dk, dv, sums, starts, *where, **sizes, U=cut.ahead, ENDS=end is not None, OUTPUT=True)
    d_decay, d_bonus = (sums[:, i].sum(0) for i in range(2))
    d_start = v.new_empty(0)
    if start is not None:
        n, d, n1, d1, p = cut.first(starts).unbind(1)
        factor = torch.exp(p + start[:, 2].clamp(min=-1e30))
        d_decay = d_decay + (factor * (start[:, 0] * n1 + start[:, 1] * d1)).sum(0)
        d_start = torch.stack([factor * n, factor * d, torch.zeros_like(n)], 1).to(start.dtype)
    return dk, dv, d_decay.to(decay.dtype), d_bonus.to(bonus.dtype), d_start


def _walk(v: Tensor, cu_seqlens: Tensor | None) -> Walk:
    return walk(v, v.shape[2], cu_seqlens, block=64, warps=24, tuning=WKV4)


def _outputs(v: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    sequences = len(v) if cu_seqlens is None else len(cu_seqlens) - 1
    return (
        v.new_empty(v.shape),
        v.new_empty((sequences, 3, v.shape[2]), dtype=torch.float32),
        v.new_empty(v.shape, dtype=torch.float32),
    )


@fused_wkv4.register_fake
def _(
    k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor, start: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(v, cu_seqlens)


@fused_wkv4_backward.register_fake
def _(
    dy: Tensor | None,
    d_final: Tensor | None,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    bonus: Tensor,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    y: Tensor,
    final: Tensor,
    log_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = (x.new_empty(x.shape) for x in (k, v, decay, bonus))
    return (*given, v.new_empty(0) if start is None else start.new_empty(start.shape))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_final: Tensor | None, *_: Any) -> tuple:
    *grads, d_start = fused_wkv4_backward(dy, d_final, *ctx.saved_tensors)
    return *grads, None if ctx.saved_tensors[4] is None else d_start, None


differentiate(fused_wkv4, _differentiate, _keep)

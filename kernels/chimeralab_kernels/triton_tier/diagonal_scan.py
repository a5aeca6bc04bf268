"""h_t = a_t h_{t−1} + x_t with a_t = exp(g_t), real or complex, from token to token.

    S_t = dh_t + R_{t+1}        R_t = conj(a_t) S_t        dx_t = S_t        dg_t = conj(a_t h_{t−1}) S_t

Segments (see `time_rows`) are joined by their ends and the sums of their logarithms.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from chimeralab_kernels.packing import check_offsets
from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator
from chimeralab_kernels.triton_tier.time_rows import Walk, piece, pieces, present, rows, walk
from chimeralab_kernels.triton_tier.tunings import DIAGONAL, DIAGONAL_COMPLEX


@jit
def _parts(g, gi, COMPLEX: tl.constexpr):
    """exp(g), real and imaginary."""
    radius = tl.exp(g.to(tl.float32))
    imaginary = radius
    if COMPLEX:
        angle = gi.to(tl.float32)
        imaginary = radius * tl.sin(angle)
        radius *= tl.cos(angle)
    return radius, imaginary


@jit
def _scan(  # noqa: PLR0915
    x, g, h, dx, dg, start, ends, logs, table, T, segments, length,
    x_b, x_t, x_d, g_b, g_t, g_d,
    D: tl.constexpr, BD: tl.constexpr, U: tl.constexpr, COMPLEX: tl.constexpr,
    BACKWARDS: tl.constexpr, PACKED: tl.constexpr,
    OUTPUT: tl.constexpr,  # write the states; backwards, read them and write dx and dg
    STARTS: tl.constexpr,
    LOGS: tl.constexpr,  # write the sum of g over the segment
):  # fmt: skip
    """One segment of a block of channels. Complex numbers lie in pairs; what ends in i is imaginary."""
    blocks: tl.constexpr = (D + BD - 1) // BD
    wide: tl.constexpr = 2 if COMPLEX else 1
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = tl.program_id(0) // blocks
    b, begin, stop, _, origin, _ = piece(table, part, segments, length, T, PACKED)
    if PACKED:
        length = stop - begin
    here = channel < D
    state = (part.to(tl.int64) * D + channel) * wide
    s, si = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    total, total_i = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    if STARTS:
        s = tl.load(start + state, here, 0.0)
        if COMPLEX:
            si = tl.load(start + state + 1, here, 0.0)
    x += b * x_b
    g += b * g_b
    out = b * T * D * wide
    step: tl.constexpr = -1 if BACKWARDS else 1
    earliest = tl.maximum(begin, origin + 1)  # of the tokens that have one before them
    for done in range(0, length, U):
        first = begin + done
        if BACKWARDS:
            first = begin + length - 1 - done
        xs = rows(x, first, x_t, x_d, channel, begin, stop, D, U, step)
        gs = rows(g, first, g_t, g_d, channel, begin, stop, D, U, step)
        xis, gis, hs, his = xs, gs, xs, xs
        if COMPLEX:
            xis = rows(x + 1, first, x_t, x_d, channel, begin, stop, D, U, step)
            gis = rows(g + 1, first, g_t, g_d, channel, begin, stop, D, U, step)
        if BACKWARDS and OUTPUT:
            hs = rows(h + out - D * wide, first, D * wide, wide, channel, earliest, stop, D, U, step)
            if COMPLEX:
                past = h + out - D * wide + 1
                his = rows(past, first, D * wide, wide, channel, earliest, stop, D, U, step)
        for i in tl.static_range(U):
            t = first + i * step
            live = present(channel, t, begin, stop, D)
            at = out + (t * D + channel) * wide
            a, ai = _parts(gs[i], gis[i], COMPLEX)
            u, ui = xs[i].to(tl.float32), xis[i].to(tl.float32)
            if LOGS:
                total += gs[i].to(tl.float32)
                if COMPLEX:
                    total_i += gis[i].to(tl.float32)
            if BACKWARDS:
                s += u
                if OUTPUT:
                    tl.store(dx + at, s, live)
                if COMPLEX:
                    si += ui
                    if OUTPUT:
                        tl.store(dx + at + 1, si, live)
                    s, si = a * s + ai * si, a * si - ai * s
                    if OUTPUT:
                        before, before_i = hs[i], his[i]
                        tl.store(dg + at, before * s + before_i * si, live)
                        tl.store(dg + at + 1, before * si - before_i * s, live)
                else:
                    s *= a
                    if OUTPUT:
                        tl.store(dg + at, hs[i].to(tl.float32) * s, live)
            elif COMPLEX:
                s, si = a * s - ai * si + u, a * si + ai * s + ui
                if OUTPUT:
                    tl.store(h + at, s, live)
                    tl.store(h + at + 1, si, live)
            else:
                s = a * s + u
                if OUTPUT:
                    tl.store(h + at, s, live)
    tl.store(ends + state, s, here)
    if COMPLEX:
        tl.store(ends + state + 1, si, here)
    if LOGS:
        tl.store(logs + state, total, here)
        if COMPLEX:
            tl.store(logs + state + 1, total_i, here)


@jit
def _join(
    ends, logs, start, met, firsts, segments,
    D: tl.constexpr, BD: tl.constexpr, COMPLEX: tl.constexpr, BACKWARDS: tl.constexpr, PACKED: tl.constexpr,
    STARTS: tl.constexpr,
):  # fmt: skip
    """The state that each segment meets."""
    wide: tl.constexpr = 2 if COMPLEX else 1
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    sequence = tl.program_id(0).to(tl.int64)
    here = channel < D
    s, si = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    if STARTS:
        s = tl.load(start + (sequence * D + channel) * wide, here, 0.0)
        if COMPLEX:
            si = tl.load(start + (sequence * D + channel) * wide + 1, here, 0.0)
    first, last = pieces(firsts, sequence, segments, PACKED)
    for i in range(first, last):
        part = first + last - 1 - i if BACKWARDS else i
        at = (part * D + channel) * wide
        tl.store(met + at, s, here)
        log = tl.load(logs + at, here, 0.0)
        log_i = log
        if COMPLEX:
            tl.store(met + at + 1, si, here)
            log_i = tl.load(logs + at + 1, here, 0.0)
            if BACKWARDS:
                log_i = -log_i
        a, ai = _parts(log, log_i, COMPLEX)
        if COMPLEX:
            u, ui = tl.load(ends + at, here, 0.0), tl.load(ends + at + 1, here, 0.0)
            s, si = a * s - ai * si + u, a * si + ai * s + ui
        else:
            s = a * s + tl.load(ends + at, here, 0.0)


def diagonal_scan(
    x: Tensor,  # B T D
    log_decay: Tensor,  # D | B T D
    initial_state: Tensor | None = None,  # B D; packed, one a sequence
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if cu_seqlens is not None:
        check_offsets(cu_seqlens, x)
    g = log_decay.expand(x.shape)
    if not x.is_complex():
        return fused_scan(x, g, initial_state, cu_seqlens)
    start = None if initial_state is None else _pairs(initial_state)
    h, final = fused_scan(_pairs(x), _pairs(g), start, cu_seqlens)
    return torch.view_as_complex(h), torch.view_as_complex(final)


def _pairs(x: Tensor) -> Tensor:
    """Complex numbers as pairs; a conjugate is no view of what it is taken of."""
    return torch.view_as_real(x.to(torch.complex64).resolve_conj())


@operator("chimeralab::fused_diagonal_scan")
def fused_scan(x: Tensor, g: Tensor, start: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """h and the final state; complex numbers as pairs in a last dimension of 2."""
    h, cut = torch.empty_like(x, memory_format=torch.contiguous_format), _walk(x, cu_seqlens)
    return h, cut.last(_run(cut, x, g, start, h=h))


@operator("chimeralab::fused_diagonal_scan_backward")
def fused_scan_backward(
    dh: Tensor | None,
    d_final: Tensor | None,
    x: Tensor,
    g: Tensor,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    h: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dg and the initial state's gradient (empty where there is none)."""
    dx, dg, d_start = _gradients(x, g, start)
    dh = torch.zeros_like(x) if dh is None else dh.contiguous() if x.dim() == 4 else dh
    cut = _walk(x, cu_seqlens)
    slope = cut.first(_run(cut, dh, g, d_final, h=h, dx=dx, dg=dg))
    if start is not None:
        _decay_given(dg, start.to(torch.float32), slope, cu_seqlens)
        d_start = slope.to(start.dtype)
    return dx, dg, d_start


def _decay_given(dg: Tensor, start: Tensor, slope: Tensor, cu_seqlens: Tensor | None) -> None:
    """A sequence's first decay acts on the state that was given, which the kernel does not read: dg is zero there."""
    if dg.dim() == 4:
        given, slope = torch.view_as_complex(start.contiguous()), torch.view_as_complex(slope)
        change = torch.view_as_real(given.conj() * slope)
    else:
        change = start * slope
    if cu_seqlens is None:
        dg[:, 0] = change
        return
    bounds = cu_seqlens.to(dg.device, torch.int64)
    empty = (bounds.diff() == 0).view(-1, *(1,) * (change.dim() - 1))
    dg[0].index_add_(0, bounds[:-1].clamp(max=dg.shape[1] - 1), change.masked_fill(empty, 0).to(dg.dtype))


def _run(
    cut: Walk,
    x: Tensor,
    g: Tensor,
    start: Tensor | None,
    *,
    h: Tensor,
    dx: Tensor | None = None,
    dg: Tensor | None = None,
) -> Tensor:
    """Forwards into `h`, or backwards into `dx` and `dg`. Returns each segment's state after the last token visited."""
    (_, T, D), pairs = x.shape[:3], x.dim() == 4
    x, g = (_within_reach(t) for t in (x, g))
    start = None if start is None else start.to(torch.float32).contiguous()
    modes: dict[str, Any] = {"D": D, "BD": cut.block, "COMPLEX": pairs, "BACKWARDS": dx is not None, "num_warps": 1}
    modes["PACKED"] = cut.packed
    where = (cut.table, T, cut.segments, cut.length, *x.stride()[:3], *g.stride()[:3])
    grid = (cut.blocks * cut.parts,)
    ends = x.new_empty((cut.parts, *x.shape[2:]), dtype=torch.float32)
    if cut.joined:
        logs, met = torch.empty_like(ends), torch.empty_like(ends)
        _scan[grid](
            x, g, h, dx, dg, None, ends, logs, *where, U=cut.ahead, OUTPUT=False, STARTS=False, LOGS=True, **modes
        )
        _join[(cut.sequences, cut.blocks)](
            ends, logs, start, met, cut.firsts, cut.segments, STARTS=start is not None, **modes
        )
        start = met
    _scan[grid](
        x, g, h, dx, dg, start, ends, None, *where,
        U=cut.ahead, OUTPUT=True, STARTS=start is not None, LOGS=False, **modes,
    )  # fmt: skip
    return ends


def _walk(x: Tensor, cu_seqlens: Tensor | None) -> Walk:
    pairs = x.dim() == 4
    tuning = DIAGONAL_COMPLEX if pairs else DIAGONAL
    return walk(x, x.shape[2], cu_seqlens, block=64 if pairs else 128, tuning=tuning)


def _within_reach(x: Tensor) -> Tensor:
    """x where its channels lie less than 2³¹ numbers apart: the kernel multiplies a channel's stride in 32 bits."""
    return x if x.shape[2] * x.stride(2) < 2**31 else x.contiguous()


def _gradients(x: Tensor, g: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        g.new_empty(g.shape),
        x.new_empty(0) if start is None else start.new_empty(start.shape),
    )


@fused_scan.register_fake
def _(x: Tensor, g: Tensor, start: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    sequences = len(x) if cu_seqlens is None else len(cu_seqlens) - 1
    final = x.new_empty((sequences, *x.shape[2:]), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), final


@fused_scan_backward.register_fake
def _(
    dh: Tensor | None,
    d_final: Tensor | None,
    x: Tensor,
    g: Tensor,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    h: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(x, g, start)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dh: Tensor | None, d_final: Tensor | None) -> tuple:
    *inputs, h = ctx.saved_tensors
    dx, dg, d_start = fused_scan_backward(dh, d_final, *inputs, h)
    return dx, dg, None if inputs[2] is None else d_start, None


differentiate(fused_scan, _differentiate, _keep)

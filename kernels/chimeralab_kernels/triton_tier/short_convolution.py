"""Causal depthwise convolution of up to four taps, its bias and SiLU, from token to token.

    p_t = Σ_w weight_w · x_{t−3+w} + bias        y = silu(p)
    dp = dy · silu'(p)        dx_t = Σ_w weight_w · dp_{t+3−w}        d weight_w = Σ_t dp_t · x_{t−3+w}

Fewer taps are four whose first are zero. The last inputs, and backwards the last dp, stay in registers: each number is
read once, and p is not kept between the passes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from chimeralab_kernels.checks import check_choice
from chimeralab_kernels.packing import check_offsets
from chimeralab_kernels.triton_tier.convolution_step import convolution_step
from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator
from chimeralab_kernels.triton_tier.launch import differentiated, unit_stride
from chimeralab_kernels.triton_tier.time_rows import Walk, piece, present, rows, walk
from chimeralab_kernels.triton_tier.tunings import SHORT_CONVOLUTION

TAPS = 4


@jit
def _tap(weight, channel, D, w: tl.constexpr, W: tl.constexpr):
    """Tap w of four, of which W exist."""
    missing: tl.constexpr = 4 - W
    return tl.load(weight + channel * W + w - missing, (channel < D) & (w >= missing), 0.0).to(tl.float32)


@jit
def _before(x, start, sequence, t, origin, x_t, channel, stop, D, W: tl.constexpr, STARTS: tl.constexpr):
    """The input of one token that may lie before the first of its sequence."""
    value = tl.load(x + t * x_t + channel, present(channel, t, origin, stop, D), 0.0).to(tl.float32)
    if STARTS:
        at = start + (sequence * (W - 1) + t - origin + W - 1) * D + channel
        value += tl.load(at, present(channel, t, origin + 1 - W, origin, D), 0.0).to(tl.float32)
    return value


@jit
def _forward(
    x, weight, bias, start, y, x_b, x_t, table, T, segments, length,
    D: tl.constexpr, W: tl.constexpr, BD: tl.constexpr, U: tl.constexpr,
    PACKED: tl.constexpr, STARTS: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = tl.program_id(0) // blocks
    b, begin, stop, sequence, origin, _ = piece(table, part, segments, length, T, PACKED)
    if PACKED:
        length = stop - begin
    x += b * x_b
    w0, w1 = _tap(weight, channel, D, 0, W), _tap(weight, channel, D, 1, W)
    w2, w3 = _tap(weight, channel, D, 2, W), _tap(weight, channel, D, 3, W)
    shift = tl.zeros((BD,), tl.float32)
    if BIASED:
        shift = tl.load(bias + channel, channel < D, 0.0).to(tl.float32)
    x0 = _before(x, start, sequence, begin - 3, origin, x_t, channel, stop, D, W, STARTS)
    x1 = _before(x, start, sequence, begin - 2, origin, x_t, channel, stop, D, W, STARTS)
    x2 = _before(x, start, sequence, begin - 1, origin, x_t, channel, stop, D, W, STARTS)
    for done in range(0, length, U):
        first = begin + done
        xs = rows(x, first, x_t, 1, channel, begin, stop, D, U, 1)
        for i in tl.static_range(U):
            t = first + i
            x3 = xs[i].to(tl.float32)
            p = shift + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
            if SILU:
                p *= tl.sigmoid(p)
            tl.store(y + (b * T + t) * D + channel, p, present(channel, t, begin, stop, D))
            x0, x1, x2 = x1, x2, x3


@jit
def _backward(
    dy, x, weight, bias, start, dx, sums, dy_b, dy_t, x_b, x_t, table, T, segments, length,
    D: tl.constexpr, W: tl.constexpr, BD: tl.constexpr, U: tl.constexpr,
    PACKED: tl.constexpr, STARTS: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """`sums`, B·segments 5 D: each program's share of the gradients of taps and bias."""
    blocks: tl.constexpr = (D + BD - 1) // BD
    channel = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    part = tl.program_id(0) // blocks
    b, begin, stop, sequence, origin, end = piece(table, part, segments, length, T, PACKED)
    if PACKED:
        length = stop - begin
    x += b * x_b
    dy += b * dy_b
    w0, w1 = _tap(weight, channel, D, 0, W), _tap(weight, channel, D, 1, W)
    w2, w3 = _tap(weight, channel, D, 2, W), _tap(weight, channel, D, 3, W)
    shift = tl.zeros((BD,), tl.float32)
    if BIASED:
        shift = tl.load(bias + channel, channel < D, 0.0).to(tl.float32)
    x0 = _before(x, start, sequence, begin - 3, origin, x_t, channel, stop, D, W, STARTS)
    x1 = _before(x, start, sequence, begin - 2, origin, x_t, channel, stop, D, W, STARTS)
    x2 = _before(x, start, sequence, begin - 1, origin, x_t, channel, stop, D, W, STARTS)
    p0, p1, p2 = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    s0, s1, s2 = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    s3, s4 = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    for done in range(0, length + 3, U):  # three tokens more, for what they give to the last ones
        first = begin + done
        xs = rows(x, first, x_t, 1, channel, begin, end, D, U, 1)
        ds = rows(dy, first, dy_t, 1, channel, begin, end, D, U, 1)
        for i in tl.static_range(U):
            t = first + i
            x3, dp = xs[i].to(tl.float32), ds[i].to(tl.float32)
            if SILU:
                p = shift + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
                open = tl.sigmoid(p)
                dp *= open * (1 + p * (1 - open))
            own = tl.where(t < stop, 1.0, 0.0) * dp
            s0 += own * x0
            s1 += own * x1
            s2 += own * x2
            s3 += own * x3
            s4 += own
            slope = w3 * p0 + w2 * p1 + w1 * p2 + w0 * dp
            tl.store(dx + (b * T + t - 3) * D + channel, slope, present(channel, t - 3, begin, stop, D))
            x0, x1, x2 = x1, x2, x3
            p0, p1, p2 = p1, p2, dp
    at = sums + part.to(tl.int64) * 5 * D + channel
    tl.store(at, s0, channel < D)
    tl.store(at + D, s1, channel < D)
    tl.store(at + 2 * D, s2, channel < D)
    tl.store(at + 3 * D, s3, channel < D)
    tl.store(at + 4 * D, s4, channel < D)


def short_convolution(
    x: Tensor,  # B T D
    weight: Tensor,  # D W
    bias: Tensor | None = None,  # D
    activation: str | None = None,
    initial_state: Tensor | None = None,  # B W-1 D; packed, one a sequence
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    check_choice("short_convolution", "activation", activation, (None, "silu"))
    if cu_seqlens is not None:
        check_offsets(cu_seqlens, x)
    elif x.shape[1] == 1 and not differentiated(x, weight, bias, initial_state):
        return convolution_step(x, weight, bias, initial_state, activation == "silu")
    y = fused_convolution(x, weight, bias, initial_state, cu_seqlens, activation == "silu")
    before, sequences = weight.shape[1] - 1, len(x) if cu_seqlens is None else len(cu_seqlens) - 1
    start = x.new_zeros(sequences, before, x.shape[2]) if initial_state is None else initial_state.to(x.dtype)
    if cu_seqlens is not None:
        return y, _last_inputs(x, start, cu_seqlens)
    if x.shape[1] < before:
        return y, torch.cat([start, x], 1)[:, x.shape[1] :]
    return y, x[:, x.shape[1] - before :].clone()


def _last_inputs(x: Tensor, start: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The inputs that packed sequences end with; those of a short one begin in its initial state."""
    before, bounds = start.shape[1], cu_seqlens.to(x.device, torch.int64)
    token = bounds[1:, None] - before + torch.arange(before, device=x.device)  # sequences W-1
    past = token - bounds[:-1, None]  # its place in the sequence; negative: in the state
    given = start.gather(1, (past + before).clamp(0, before - 1).unsqueeze(-1).expand_as(start))
    return torch.where((past < 0).unsqueeze(-1), given, x[0][token.clamp(min=0)])


@operator("chimeralab::fused_short_convolution")
def fused_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None, cu_seqlens: Tensor | None, silu: bool
) -> Tensor:
    x = unit_stride(x)
    T, D = x.shape[1:]
    y, cut = x.new_empty(x.shape), _walk(x, cu_seqlens)
    _forward[(cut.blocks * cut.parts,)](
        x, weight.contiguous(), _vector(bias), None if start is None else start.contiguous(), y, *x.stride()[:2],
        cut.table, T, cut.segments, cut.length, D=D, W=weight.shape[1], BD=cut.block, U=cut.ahead, PACKED=cut.packed,
        STARTS=start is not None, BIASED=bias is not None, SILU=silu, num_warps=1,
    )  # fmt: skip
    return y


@operator("chimeralab::fused_short_convolution_backward")
def fused_convolution_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, d weight, d bias and that of the initial state; the last two are empty where there is no such input."""
    dy, x, W = unit_stride(dy), unit_stride(x), weight.shape[1]
    T, D = x.shape[1:]
    dx, cut = x.new_empty(x.shape), _walk(x, cu_seqlens)
    sums = x.new_empty((cut.parts, TAPS + 1, D), dtype=torch.float32)
    _backward[(cut.blocks * cut.parts,)](
        dy, x, weight.contiguous(), _vector(bias), None if start is None else start.contiguous(), dx, sums,
        *dy.stride()[:2], *x.stride()[:2], cut.table, T, cut.segments, cut.length,
        D=D, W=W, BD=cut.block, U=cut.ahead, PACKED=cut.packed,
        STARTS=start is not None, BIASED=bias is not None, SILU=silu, num_warps=1,
    )  # fmt: skip
    total = sums.sum(0)
    return (
        dx,
        total[TAPS - W : TAPS].T.to(weight.dtype).contiguous(),
        total[TAPS].to(bias.dtype) if bias is not None else x.new_empty(0),
        x.new_empty(0) if start is None else _before_the_first(dy, x, weight, bias, start, cu_seqlens, silu),
    )


def _vector(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _walk(x: Tensor, cu_seqlens: Tensor | None) -> Walk:
    return walk(x, x.shape[2], cu_seqlens, block=128, tuning=SHORT_CONVOLUTION)


def _before_the_first(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    start: Tensor,
    cu_seqlens: Tensor | None,
    silu: bool,
) -> Tensor:
    """Gradient of the initial state, from the W − 1 outputs that read it."""
    W, wide = weight.shape[1], torch.float32
    xs, dp = (_first_tokens(t, W - 1, cu_seqlens).to(wide) for t in (x, dy))
    reach = xs.shape[1]
    taps = weight.T.to(wide)  # W D
    history = torch.cat([start.to(wide), xs], 1)
    p = sum(taps[w] * history[:, w : w + reach] for w in range(W)) + (0 if bias is None else bias.to(wide))
    if silu:
        open = torch.sigmoid(p)
        dp = dp * open * (1 + p * (1 - open))
    d_history = torch.zeros_like(history)
    for w in range(W):
        d_history[:, w : w + reach] += taps[w] * dp
    return d_history[:, : W - 1].to(start.dtype).contiguous()


def _first_tokens(x: Tensor, count: int, cu_seqlens: Tensor | None) -> Tensor:
    """Each sequence's first rows; zeros behind the end of a packed one."""
    if cu_seqlens is None:
        return x[:, :count]
    bounds = cu_seqlens.to(x.device, torch.int64)
    token = bounds[:-1, None] + torch.arange(count, device=x.device)
    outside = (token >= bounds[1:, None]).unsqueeze(-1)
    return x[0][token.clamp(max=x.shape[1] - 1)].masked_fill(outside, 0)


@fused_convolution.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None, cu_seqlens: Tensor | None, silu: bool
) -> Tensor:
    return x.new_empty(x.shape)


@fused_convolution_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        x.new_empty(0) if bias is None else bias.new_empty(bias.shape),
        x.new_empty(0) if start is None else start.new_empty(start.shape),
    )


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor) -> tuple:
    x, weight, bias, start, cu_seqlens = ctx.saved_tensors
    dx, d_weight, d_bias, d_start = fused_convolution_backward(dy, x, weight, bias, start, cu_seqlens, ctx.silu)
    return dx, d_weight, None if bias is None else d_bias, None if start is None else d_start, None, None


differentiate(fused_convolution, _differentiate, _keep)

"""One token of a short convolution, for decoding: one kernel reads the last inputs, writes the output and the next."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from chimeralab_kernels.triton_tier.first_call import jit, operator
from chimeralab_kernels.triton_tier.launch import power_of_two


@jit
def step(
    x, weight, bias, start, y, final, x_b, x_d, w_d, w_w, s_b, s_w, s_d,
    D: tl.constexpr, W: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
    STARTS: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """One program: a block of channels of one sequence, its W inputs below each other."""
    b = tl.program_id(0).to(tl.int64)
    channel = (tl.program_id(1) * BD + tl.arange(0, BD)).to(tl.int64)
    tap = tl.arange(0, BW)
    in_d = channel < D
    inputs = tl.zeros((BW, BD), tl.float32)
    if STARTS:
        past = start + b * s_b + tap[:, None] * s_w + channel[None, :] * s_d
        inputs = tl.load(past, (tap < W - 1)[:, None] & in_d[None, :], 0.0).to(tl.float32)
    own = tl.load(x + b * x_b + channel * x_d, in_d, 0.0).to(tl.float32)
    inputs = tl.where((tap == W - 1)[:, None], own[None, :], inputs)
    taps = tl.load(weight + channel[None, :] * w_d + tap[:, None] * w_w, (tap < W)[:, None] & in_d[None, :], 0.0)
    p = tl.sum(inputs * taps.to(tl.float32), 0)
    if BIASED:
        p += tl.load(bias + channel, in_d, 0.0).to(tl.float32)
    if SILU:
        p *= tl.sigmoid(p)
    tl.store(y + b * D + channel, p, in_d)
    at = final + (b * (W - 1) + tap[:, None] - 1) * D + channel[None, :]
    tl.store(at, inputs, ((tap > 0) & (tap < W))[:, None] & in_d[None, :])


@operator("chimeralab::convolution_step")
def convolution_step(
    x: Tensor,  # B 1 D
    weight: Tensor,  # D W
    bias: Tensor | None,  # D
    start: Tensor | None,  # B W-1 D
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """y and the last W − 1 inputs; not differentiable."""
    y, final = _outputs(x, weight)
    (B, _, D), W = x.shape, weight.shape[1]
    block = min(power_of_two(D), 256)
    step[(B, -(-D // block))](
        x, weight, None if bias is None else bias.contiguous(), start, y, final, x.stride(0), x.stride(2),
        *weight.stride(), *((0, 0, 0) if start is None else start.stride()),
        D=D, W=W, BW=power_of_two(W), BD=block, STARTS=start is not None, BIASED=bias is not None, SILU=silu,
        num_warps=2,
    )  # fmt: skip
    return y, final


def _outputs(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((len(x), weight.shape[1] - 1, x.shape[2]))


@convolution_step.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    return _outputs(x, weight)

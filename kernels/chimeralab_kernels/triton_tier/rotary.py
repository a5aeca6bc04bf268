"""Rotary position embedding in one pass. The gradient is the rotation by the opposite angle."""

from __future__ import annotations

from typing import Any

import triton.language as tl
from torch import Tensor

from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator
from chimeralab_kernels.triton_tier.launch import power_of_two, unit_stride


@jit
def _rotate(
    x, cos, sin, y, x_b, x_t, x_h, c_b, c_t, s_b, s_t, T, sign,
    H: tl.constexpr, HALF: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    b, t = token // T, token % T
    column = tl.arange(0, BK)
    in_half = column < HALF
    c = tl.load(cos + b * c_b + t * c_t + column, in_half, 0.0).to(tl.float32)[None, :]
    s = tl.load(sin + b * s_b + t * s_t + column, in_half, 0.0).to(tl.float32)[None, :] * sign
    head = tl.program_id(1).to(tl.int64) * BH + tl.arange(0, BH)
    here = (head < H)[:, None] & in_half[None, :]
    source = x + b * x_b + t * x_t + head[:, None] * x_h + column[None, :]
    first = tl.load(source, here, 0.0).to(tl.float32)
    second = tl.load(source + HALF, here, 0.0).to(tl.float32)
    target = y + (token * H + head[:, None]) * (2 * HALF) + column[None, :]
    tl.store(target, first * c - second * s, here)
    tl.store(target + HALF, second * c + first * s, here)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rotated(x, cos, sin, 1.0)


@operator("chimeralab::fused_rotary")
def rotated(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    """x: B T H K, by the angles (T K/2 or B T K/2) times `sign`."""
    x, cos, sin = unit_stride(x), unit_stride(cos), unit_stride(sin)
    B, T, H, K = x.shape
    y = x.new_empty(x.shape)
    BK = power_of_two(K // 2)
    BH = min(power_of_two(H), max(1, 2048 // BK))
    batch_c, batch_s = (a.stride(0) if a.dim() == 3 else 0 for a in (cos, sin))
    _rotate[(B * T, -(-H // BH))](
        x, cos, sin, y, *x.stride()[:3], batch_c, cos.stride(-2), batch_s, sin.stride(-2), T, sign,
        H=H, HALF=K // 2, BH=BH, BK=BK, num_warps=4 if BH * BK > 512 else 1,
    )  # fmt: skip
    return y


@rotated.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, cos, sin, ctx.sign = inputs
    ctx.save_for_backward(cos, sin)


def _differentiate(ctx: Any, dy: Tensor) -> tuple:
    return rotated(dy, *ctx.saved_tensors, -ctx.sign), None, None, None


differentiate(rotated, _differentiate, _keep)

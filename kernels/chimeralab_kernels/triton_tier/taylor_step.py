"""One token of Taylor linear attention, for decoding: a kernel makes features, reads the state and writes the next."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.first_call import jit, operator
from chimeralab_kernels.triton_tier.launch import power_of_two

ROWS = 32
"""Features that a program treats at once."""


@jit
def _features(x, x_k, r, first, i, j, SINGLE, PAIR, EQUAL, R: tl.constexpr):
    """Features r … of a query or key: a product of two channels, of one and 1, or of 1 and 1."""
    second = r >= first
    a = tl.load(x + i * x_k, (r > 0) & (r < R), 1.0).to(tl.float32)
    b = tl.load(x + j * x_k, second & (r < R), 1.0).to(tl.float32)
    weight = tl.where(second, tl.where(i == j, EQUAL, PAIR), tl.where(r > 0, SINGLE, 1.0))
    return tl.where(r < R, a * b * weight, 0.0)


@jit
def step(
    q,  # B 1 H F
    k,  # B 1 H F
    v,  # B 1 H V
    state,  # B H R V+1
    y,  # B 1 H V
    final,  # B H R V+1
    q_b, q_h, q_k, k_b, k_h, k_k, v_b, v_h, v_v, s_b, s_h, s_r, s_v,  # strides
    H, SINGLE, PAIR, EQUAL,
    F: tl.constexpr, R: tl.constexpr, V: tl.constexpr, BR: tl.constexpr, BV: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """One program: BV columns of one head's state, and the last one, by which they are divided."""
    head = tl.program_id(0).to(tl.int64)
    b, h = head // H, head % H
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    if STARTS:
        state += b * s_b + h * s_h
    final += head * R * (V + 1)
    column = tl.program_id(1) * BV + tl.arange(0, BV)
    in_v = column < V
    value = tl.load(v + b * v_b + h * v_h + column * v_v, in_v, 0.0).to(tl.float32)
    out, total = tl.zeros((BR, BV), tl.float32), tl.zeros((BR,), tl.float32)
    for start in range(0, R, BR):
        r = start + tl.arange(0, BR)
        place = r - 1 - F  # among the pairs i ≤ j, row after row
        i = tl.zeros((BR,), tl.int32)
        for m in range(1, F):
            i += tl.where(place >= m * F - m * (m - 1) // 2, 1, 0)
        j = place - (i * F - i * (i - 1) // 2) + i
        i = tl.where(r > F, i, r - 1)
        reader = _features(q, q_k, r, F + 1, i, j, SINGLE, PAIR, EQUAL, R)
        writer = _features(k, k_k, r, F + 1, i, j, SINGLE, PAIR, EQUAL, R)
        here = (r < R)[:, None] & in_v[None, :]
        S, ones = writer[:, None] * value[None, :], writer
        if STARTS:
            S += tl.load(state + r[:, None] * s_r + column[None, :] * s_v, here, 0.0).to(tl.float32)
            ones += tl.load(state + r * s_r + V * s_v, r < R, 0.0).to(tl.float32)
        out += reader[:, None] * S
        total += reader * ones
        tl.store(final + r[:, None] * (V + 1) + column[None, :], S, here)
        tl.store(final + r * (V + 1) + V, ones, r < tl.where(tl.program_id(1) == 0, R, 0))
    tl.store(y + head * V + column, tl.sum(out, 0) / tl.sum(total, 0), in_v)


@operator("chimeralab::taylor_step")
def taylor_step(
    q: Tensor,  # B 1 H F
    k: Tensor,  # B 1 H F
    v: Tensor,  # B 1 H V
    initial: Tensor | None,  # B H R V+1
) -> tuple[Tensor, Tensor]:
    """y and the state after the token; not differentiable."""
    y, final = _outputs(k, v)
    (B, _, H, V), dim = v.shape, k.shape[-1]
    block = min(power_of_two(V), 128)
    step[(B * H, -(-V // block))](
        q, k, v, initial, y, final, *(x.stride(n) for x in (q, k, v) for n in (0, 2, 3)),
        *((0, 0, 0, 0) if initial is None else initial.stride()), H, dim**-0.25, dim**-0.5, (0.5 / dim) ** 0.5,
        F=dim, R=final.shape[2], V=V, BR=ROWS, BV=block, STARTS=initial is not None, num_warps=4,
    )  # fmt: skip
    return y, final


def _outputs(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    B, _, H, V = v.shape
    shape = (B, H, ops.taylor_features_count(k.shape[-1]), V + 1)
    return v.new_empty(v.shape), v.new_empty(shape, dtype=torch.float32)


@taylor_step.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    return _outputs(k, v)


@register_flop_formula(torch.ops.chimeralab.taylor_step)
def _flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(ops.taylor_linear_attention_cost(v[2], k[-1], v[3]).decode_flops(0) * v[0])

"""silu(gate) · up, and both gradients, in one pass each."""

from __future__ import annotations

from typing import Any

import triton.language as tl
from torch import Tensor

from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator
from chimeralab_kernels.triton_tier.launch import power_of_two, rows_of


@jit
def _forward(gate, up, y, gate_r, up_r, D: tl.constexpr, BD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BD + tl.arange(0, BD)
    here = column < D
    g = tl.load(gate + row * gate_r + column, here, 0.0).to(tl.float32)
    u = tl.load(up + row * up_r + column, here, 0.0).to(tl.float32)
    tl.store(y + row * D + column, g * tl.sigmoid(g) * u, here)


@jit
def _backward(dy, gate, up, d_gate, d_up, dy_r, gate_r, up_r, D: tl.constexpr, BD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BD + tl.arange(0, BD)
    here = column < D
    slope = tl.load(dy + row * dy_r + column, here, 0.0).to(tl.float32)
    g = tl.load(gate + row * gate_r + column, here, 0.0).to(tl.float32)
    u = tl.load(up + row * up_r + column, here, 0.0).to(tl.float32)
    open = tl.sigmoid(g)
    tl.store(d_up + row * D + column, slope * g * open, here)
    tl.store(d_gate + row * D + column, slope * u * open * (1 + g * (1 - open)), here)


@operator("chimeralab::fused_swiglu")
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    y = gate.new_empty(gate.shape)
    g, u = rows_of(gate), rows_of(up)
    rows, D = g.shape
    BD = min(power_of_two(D), 2048)
    _forward[(rows, -(-D // BD))](g, u, y, g.stride(0), u.stride(0), D=D, BD=BD, num_warps=4)
    return y


@operator("chimeralab::fused_swiglu_backward")
def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    d_gate, d_up = gate.new_empty(gate.shape), up.new_empty(up.shape)
    d, g, u = rows_of(dy), rows_of(gate), rows_of(up)
    rows, D = g.shape
    BD = min(power_of_two(D), 2048)
    _backward[(rows, -(-D // BD))](
        d, g, u, d_gate, d_up, d.stride(0), g.stride(0), u.stride(0), D=D, BD=BD, num_warps=4
    )
    return d_gate, d_up


@swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@swiglu_backward.register_fake
def _(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    return swiglu_backward(dy, *ctx.saved_tensors)


differentiate(swiglu, _differentiate, _keep)

"""One token of a recurrent network, for decoding: the products with the output before, the gates and the next state.

One kernel reads the weights once for a block of the batch. Whole sequences are left to the torch tier: there each token
waits for the one before it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.first_call import jit, operator
from chimeralab_kernels.triton_tier.launch import power_of_two


@jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@jit
def step(  # noqa: PLR0915
    x,  # B 1 H G K
    weight,  # H G K K: out, in
    bias,  # H G K
    state,  # B S H K
    y,  # B 1 H K
    final,  # B S H K
    x_b, x_h, x_g, x_k, w_h, w_g, w_o, w_i, b_h, b_g, b_k, s_b, s_s, s_h, s_k,  # strides
    B, H,
    K: tl.constexpr, G: tl.constexpr, S: tl.constexpr, BB: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
    CELL: tl.constexpr, BIASED: tl.constexpr, STARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BO outputs of one head, for BB of the batch."""
    blocks: tl.constexpr = (K + BO - 1) // BO
    out = (tl.program_id(0) % blocks * BO + tl.arange(0, BO)).to(tl.int64)
    h = (tl.program_id(0) // blocks).to(tl.int64)
    b = (tl.program_id(1) * BB + tl.arange(0, BB)).to(tl.int64)[:, None]
    here = (b < B) & (out < K)[None, :]
    a0, a1 = tl.zeros((BB, BO), tl.float32), tl.zeros((BB, BO), tl.float32)
    a2, a3 = a0, a1
    if BIASED:
        bias += b_h * h + out[None, :] * b_k
        a0 += tl.load(bias, (out < K)[None, :], 0.0).to(tl.float32)
        if G > 1:
            a1 += tl.load(bias + b_g, (out < K)[None, :], 0.0).to(tl.float32)
            a2 += tl.load(bias + 2 * b_g, (out < K)[None, :], 0.0).to(tl.float32)
        if G > 3:
            a3 += tl.load(bias + 3 * b_g, (out < K)[None, :], 0.0).to(tl.float32)
    if STARTS:
        state += b * s_b + h * s_h
        weight += h * w_h
        for first in range(0, K, BI):
            i = (first + tl.arange(0, BI)).to(tl.int64)
            past = tl.load(state + i[None, :] * s_k, (b < B) & (i < K)[None, :], 0.0).to(tl.float32)
            at = weight + out[None, :] * w_o + i[:, None] * w_i
            inside = (i < K)[:, None] & (out < K)[None, :]
            a0 = tl.dot(past, tl.load(at, inside, 0.0).to(tl.float32), a0, input_precision=PRECISION)
            if G > 1:
                a1 = tl.dot(past, tl.load(at + w_g, inside, 0.0).to(tl.float32), a1, input_precision=PRECISION)
                a2 = tl.dot(past, tl.load(at + 2 * w_g, inside, 0.0).to(tl.float32), a2, input_precision=PRECISION)
            if G > 3:
                a3 = tl.dot(past, tl.load(at + 3 * w_g, inside, 0.0).to(tl.float32), a3, input_precision=PRECISION)
    x += b * x_b + h * x_h + out[None, :] * x_k
    x0 = tl.load(x, here, 0.0).to(tl.float32)
    x1, x2, x3 = x0, x0, x0
    if G > 1:
        x1, x2 = tl.load(x + x_g, here, 0.0).to(tl.float32), tl.load(x + 2 * x_g, here, 0.0).to(tl.float32)
    if G > 3:
        x3 = tl.load(x + 3 * x_g, here, 0.0).to(tl.float32)
    before = tl.zeros((BB, BO), tl.float32)  # of the states, the output or the cell
    if STARTS and (CELL == "gru" or S > 1):
        held = state + out[None, :] * s_k
        before = tl.load(held if CELL == "gru" else held + s_s, here, 0.0).to(tl.float32)
    at = final + (b * S * H + h) * K + out[None, :]
    apart = H * K  # of two states

    if CELL == "tanh":
        value = _tanh(x0 + a0)
    elif CELL == "relu":
        value = tl.maximum(x0 + a0, 0.0)
    elif CELL == "gru":
        update = tl.sigmoid(x2 + a2)
        value = (1 - update) * _tanh(x0 + tl.sigmoid(x1 + a1) * a0) + update * before
    elif CELL == "lstm":
        cell = tl.sigmoid(x2 + a2) * before + tl.sigmoid(x1 + a1) * _tanh(x0 + a0)
        value = tl.sigmoid(x3 + a3) * _tanh(cell)
        tl.store(at + apart, cell, here)
    else:
        count, top = tl.zeros((BB, BO), tl.float32), tl.full((BB, BO), -1e38, tl.float32)
        if STARTS:
            count = tl.load(held + 2 * s_s, here, 0.0).to(tl.float32)
            top = tl.load(held + 3 * s_s, here, 0.0).to(tl.float32)
        enter, forget = x1 + a1, x2 + a2
        kept = tl.minimum(forget, 0.0) - tl.log(1 + tl.exp(-tl.abs(forget))) + top
        top = tl.maximum(kept, enter)
        keep, enter = tl.exp(kept - top), tl.exp(enter - top)
        cell = keep * before + enter * _tanh(x0 + a0)
        count = keep * count + enter
        value = tl.sigmoid(x3 + a3) * cell / count
        tl.store(at + apart, cell, here)
        tl.store(at + 2 * apart, count, here)
        tl.store(at + 3 * apart, top, here)
    tl.store(at, value, here)
    tl.store(y + (b * H + h) * K + out[None, :], value, here)


def rnn_scan(
    x: Tensor,  # B 1 H G K
    weight: Tensor,  # H G K K
    cell: str,
    bias: Tensor | None = None,  # H G K
    initial_state: Tensor | None = None,  # B S H K
    cu_seqlens: None = None,
) -> tuple[Tensor, Tensor]:
    return rnn_step(x, weight, cell, bias, initial_state)


@operator("chimeralab::rnn_step")
def rnn_step(
    x: Tensor, weight: Tensor, cell: str, bias: Tensor | None, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h and the state after the token; not differentiable."""
    y, final = _outputs(x, cell)
    (B, _, H, G, K), S = x.shape, final.shape[1]
    rows, inner = max(16, min(power_of_two(B), 64)), max(16, min(power_of_two(K), 64))
    columns = min(inner, 32)
    strides = (x.stride(0), *x.stride()[2:], *weight.stride(), *((0, 0, 0) if bias is None else bias.stride()))
    step[(-(-K // columns) * H, -(-B // rows))](
        x, weight, bias, initial, y, final, *strides, *((0, 0, 0, 0) if initial is None else initial.stride()), B, H,
        K=K, G=G, S=S, BB=rows, BO=columns, BI=inner, CELL=cell, BIASED=bias is not None, STARTS=initial is not None,
        # Weights in half precision are exact in TF32.
        PRECISION="ieee" if weight.dtype == torch.float32 else "tf32", num_warps=4, num_stages=3,
    )  # fmt: skip
    return y, final


def _outputs(x: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    B, T, H, _, K = x.shape
    return x.new_empty((B, T, H, K)), x.new_empty((B, len(ops.CELLS[cell].states), H, K), dtype=torch.float32)


@rnn_step.register_fake
def _(x: Tensor, weight: Tensor, cell: str, bias: Tensor | None, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    return _outputs(x, cell)


@register_flop_formula(torch.ops.chimeralab.rnn_step)
def _flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[2] * x[3] * x[4] * x[4]

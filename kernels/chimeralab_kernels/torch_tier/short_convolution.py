"""Causal depthwise convolution as a sum of W shifted products.

On a CPU that is ten to twenty times as fast as `F.conv1d(groups=D)`, whose layout wants T last. It is an
operator of its own so that its 2WD FLOPs a token are counted, and the backward pass keeps only the inputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab_kernels.checks import check_choice
from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import wide


def short_convolution(
    x: Tensor,  # B T D
    weight: Tensor,  # D W
    bias: Tensor | None = None,  # D
    activation: str | None = None,
    initial_state: Tensor | None = None,  # B W-1 D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    check_choice("short_convolution", "activation", activation, (None, "silu"))

    def convolve(x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        if tail is None:
            tail = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2])
        history = torch.cat([tail.to(x.dtype), x], 1)  # B T+W-1 D
        y = shifted_sum(history, weight)
        if bias is not None:
            y = y + bias.to(y.dtype)
        return (F.silu(y) if activation == "silu" else y).to(x.dtype), history[:, x.shape[1] :]

    if cu_seqlens is not None:
        return each_sequence(convolve, cu_seqlens, initial_state, x)
    return convolve(x, initial_state)


@torch.library.custom_op("chimeralab::shifted_sum", mutates_args=())
def shifted_sum(history: Tensor, weight: Tensor) -> Tensor:
    """Σ_w weight[:, w] · history[:, t + w]: B T+W-1 D and D W to B T D, in float32 or better."""
    W = weight.shape[1]
    T = history.shape[1] - W + 1
    taps = weight.T.to(wide(history)).contiguous()  # W D
    history = history.to(taps.dtype)
    y = history[:, :T] * taps[0]
    for w in range(1, W):
        y.addcmul_(history[:, w : w + T], taps[w])
    return y


@torch.library.custom_op("chimeralab::shifted_sum_backward", mutates_args=())
def shifted_sum_backward(d_y: Tensor, history: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    W, T = weight.shape[1], d_y.shape[1]
    taps, wide_history = weight.T.to(d_y.dtype).contiguous(), history.to(d_y.dtype)
    d_history = torch.zeros_like(wide_history)
    d_taps = torch.empty_like(taps)
    for w in range(W):
        d_history[:, w : w + T].addcmul_(d_y, taps[w])
        d_taps[w] = (d_y * wide_history[:, w : w + T]).sum((0, 1))  # an einsum would transpose both, ten times slower
    return d_history.to(history.dtype), d_taps.T.to(weight.dtype).contiguous()


@shifted_sum.register_fake
def _(history: Tensor, weight: Tensor) -> Tensor:
    B, L, D = history.shape
    return history.new_empty(B, L - weight.shape[1] + 1, D, dtype=wide(history))


@shifted_sum_backward.register_fake
def _(d_y: Tensor, history: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(history), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
    return shifted_sum_backward(d_y.contiguous(), *ctx.saved_tensors)


shifted_sum.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.chimeralab.shifted_sum)
def _flops(history: Any, weight: Any, **_: Any) -> int:
    D, W = weight
    return 2 * history[0] * (history[1] - W + 1) * D * W


@register_flop_formula(torch.ops.chimeralab.shifted_sum_backward)
def _backward_flops(d_y: Any, history: Any, weight: Any, **_: Any) -> int:
    return 4 * d_y[0] * d_y[1] * weight[0] * weight[1]

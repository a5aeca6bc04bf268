"""y_t = act(Σ_w weight[:, w] · x_{t-W+1+w} + bias), tap by tap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
    W, dtype = weight.shape[1], wide(x)

    def convolve(x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        T = x.shape[1]
        if tail is None:
            tail = x.new_zeros(len(x), W - 1, x.shape[2])
        history = torch.cat([tail.to(x.dtype), x], 1)
        y = torch.zeros_like(x, dtype=dtype)
        for w in range(W):
            y = y + weight[:, w].to(dtype) * history[:, w : w + T].to(dtype)
        if bias is not None:
            y = y + bias.to(dtype)
        return (F.silu(y) if activation == "silu" else y).to(x.dtype), history[:, T:]

    check_choice("short_convolution", "activation", activation, (None, "silu"))
    if cu_seqlens is not None:
        return each_sequence(convolve, cu_seqlens, initial_state, x)
    return convolve(x, initial_state)

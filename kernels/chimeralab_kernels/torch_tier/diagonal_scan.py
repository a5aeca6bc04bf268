"""h_t = exp(g_t) ⊙ h_{t-1} + x_t as one scan over pairs of decay and input."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import wide
from chimeralab_kernels.torch_tier.linear_scan import linear_scan


def diagonal_scan(
    x: Tensor,  # B T D
    log_decay: Tensor,  # D | B T D
    initial_state: Tensor | None = None,  # B D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    dtype = wide(x)
    if log_decay.dim() == 1:
        log_decay = log_decay.expand(1, x.shape[1], -1)

    def recurrence(x: Tensor, g: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        state = torch.zeros_like(x[:, 0], dtype=dtype) if state is None else state.to(dtype)
        if x.shape[1] == 0:
            return x, state
        h = linear_scan(x.to(dtype), g.to(dtype).exp(), state)
        return h.to(x.dtype), h[:, -1]

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, x, log_decay)
    return recurrence(x, log_decay, initial_state)

"""Recurrences with a diagonal transition, one token after another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import wide


def diagonal_scan(
    x: Tensor,  # B T D
    log_decay: Tensor,  # D | B T D
    initial_state: Tensor | None = None,  # B D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    dtype = wide(x)

    def recurrence(x: Tensor, log_decay: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        decay = log_decay.to(dtype).exp()
        h = torch.zeros_like(x[:, 0], dtype=dtype) if state is None else state.to(dtype)
        outputs = [x[:, :0].to(dtype)]
        for t in range(x.shape[1]):
            h = decay[:, t] * h + x[:, t].to(dtype)
            outputs.append(h.unsqueeze(1))
        return torch.cat(outputs, 1).to(x.dtype), h

    log_decay = log_decay.expand(x.shape)
    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, x, log_decay)
    return recurrence(x, log_decay, initial_state)


def selective_scan(
    u: Tensor,  # B T D
    delta: Tensor,  # B T D
    A: Tensor,  # D N
    B: Tensor,  # B T N
    C: Tensor,  # B T N
    skip: Tensor | None = None,  # D
    z: Tensor | None = None,  # B T D
    initial_state: Tensor | None = None,  # B D N
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    dtype = wide(u)

    def recurrence(
        u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs, delta, B, C = (t.to(dtype) for t in (u, delta, B, C))
        h = inputs.new_zeros(len(u), *A.shape) if state is None else state.to(dtype)
        outputs = [inputs[:, :0]]
        for t in range(u.shape[1]):
            step = delta[:, t].unsqueeze(-1)  # B D 1
            h = (step * A.to(dtype)).exp() * h + step * inputs[:, t].unsqueeze(-1) * B[:, t].unsqueeze(1)
            outputs.append((h * C[:, t].unsqueeze(1)).sum(-1).unsqueeze(1))
        y = torch.cat(outputs, 1)
        if skip is not None:
            y = y + skip.to(dtype) * inputs
        if z is not None:
            y = y * F.silu(z.to(dtype))
        return y.to(u.dtype), h

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, u, delta, B, C, z)
    return recurrence(u, delta, B, C, z, initial_state)

"""y_t = gate_t ⊙ (Σ_l kernel[:, l] · x_{t-l} + skip ⊙ x_t), tap by tap."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.precision import wide


def long_convolution(
    x: Tensor,  # B T D
    kernel: Tensor,  # D L
    skip: Tensor | None = None,  # D
    gate: Tensor | None = None,  # B T D
) -> Tensor:
    T, dtype = x.shape[1], wide(x)
    u, taps = x.to(dtype), kernel.to(dtype)
    y = torch.zeros_like(u) if skip is None else skip.to(dtype) * u
    for lag in range(min(T, kernel.shape[1])):
        delayed = torch.cat([torch.zeros_like(u[:, :lag]), u[:, : T - lag]], 1)
        y = y + taps[:, lag] * delayed
    return (y if gate is None else gate.to(dtype) * y).to(x.dtype)

"""A diagonal recurrence whose decays may be negative: what tracks the parity of what it has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab import ops


def signed_scan(x: Tensor, decay: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = a_t ⊙ h_{t-1} + x_t with a_t in [-1, 1], by a scan of positive decays.

    With σ_t the product of the signs of a_1 … a_t, the state σ_t h_t decays by |a_t| and its inputs are σ_t x_t.

    Args:
        x, decay: B T …, float32 or better.
        initial_state: B …

    Returns:
        h: B T …; its last one, B …
    """
    if x.shape[1] == 0:
        return x, initial_state
    shape = x.shape
    sign = torch.where(decay < 0, -1.0, 1.0).to(x.dtype).cumprod(1)
    log_decay = decay.abs().clamp_min(torch.finfo(x.dtype).tiny).log()
    h, last = ops.diagonal_scan((sign * x).flatten(2), log_decay.flatten(2), initial_state=initial_state.flatten(1))
    return sign * h.view(shape), sign[:, -1] * last.view(initial_state.shape)

"""How the steps of decaying mixers start."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def step_bias(count: int, low: float = 1e-3, high: float = 0.1) -> Tensor:
    """Biases whose softplus is log-uniform between `low` and `high` (Mamba, arXiv 2312.00752, section 3.6)."""
    step = torch.exp(torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low))
    return step + torch.log(-torch.expm1(-step))

"""The dtype that sums are kept in."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> torch.dtype:
    """float32, or float64 where `x` is."""
    return torch.promote_types(x.dtype, torch.float32)

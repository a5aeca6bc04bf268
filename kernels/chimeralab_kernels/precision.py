"""The dtype that sums are kept in, and products with them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

FLOOR = -100.0
"""The least log decay where running sums are subtracted: exp is 0 there, −∞ − −∞ would be NaN, and large sums round."""


def wide(x: Tensor) -> torch.dtype:
    """float32, or float64 where `x` is."""
    return torch.promote_types(x.dtype, torch.float32)


def full_precision(x: Tensor) -> AbstractContextManager:
    """Within it autocast leaves matrix products on x's device in their own dtype.

    For recurrences that feed their output back, where an error of bfloat16 in one product is multiplied by the next,
    and for attention scores, whose error the softmax's exponential multiplies.
    """
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

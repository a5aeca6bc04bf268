"""Token shift: each token looks at the one before it, channel by channel (RWKV)."""

from __future__ import annotations

import torch
from torch import Tensor


def previous_tokens(x: Tensor, last: Tensor | None) -> Tensor:  # B T D
    """The token before each of x; before the first stands `last` (B D), or zeros at the start of a sequence."""
    first = torch.zeros_like(x[:, :1]) if last is None else last.to(x.dtype).unsqueeze(1)
    return torch.cat([first, x[:, :-1]], 1)


def shift(x: Tensor, previous: Tensor, share: Tensor) -> Tensor:  # B T D, B T D, D
    """share · x + (1 − share) · previous: what RWKV-4 and 5 call time mix."""
    return previous + (x - previous) * share

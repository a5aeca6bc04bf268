"""Which keys a query sees."""

from __future__ import annotations

import torch
from torch import Tensor


def visible(
    T: int, S: int, window: int | None, q_offset: int | Tensor, device: torch.device | str
) -> Tensor:  # T S, bool
    """Query t stands at `q_offset + t` and sees its own position and, in all, `window` keys up to it."""
    position = torch.arange(T, device=device).unsqueeze(1) + q_offset
    behind = position - torch.arange(S, device=device)  # how far key s lies behind query t
    return behind >= 0 if window is None else (behind >= 0) & (behind < window)

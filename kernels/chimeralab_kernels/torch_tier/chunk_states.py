"""The scan over chunks: S_{n+1} = decay_n · S_n + written_n."""

from __future__ import annotations

import torch
from torch import Tensor


def chunk_states(written: Tensor, decay: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk, and the last one.

    Args:
        written: … N K V, what each chunk adds to the state.
        decay: broadcastable to it, what each chunk leaves of the state before it.
        initial: … K V.

    Returns:
        … N K V and … K V.
    """
    state, before = initial, []
    for new, kept in zip(written.unbind(-3), decay.unbind(-3), strict=True):
        before.append(state)
        state = torch.addcmul(new, kept, state)
    return torch.stack(before, -3), state

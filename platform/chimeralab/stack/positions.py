"""Learned positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chimeralab.errors import SpecError


class Positions(nn.Module):
    """Learned positions, one row a token, added to the embeddings (GPT-2)."""

    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, d_model))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:  # x: B T D; seen: 0-dim int64
        """x with positions from `seen` on, and what is seen then. On a GPU it cannot tell that rows have run out."""
        T = x.shape[1]
        seen = torch.zeros((), dtype=torch.int64, device=x.device) if seen is None else seen
        if x.device.type == "cpu" and not torch.compiler.is_compiling() and int(seen) + T > len(self.weight):
            raise SpecError(
                f"there are learned positions for {len(self.weight)} tokens, not for {int(seen) + T}",
                place="stack.positions",
                remedy="Shorten the sequence, or give the stack more positions",
            )
        return x + self.weight[seen + torch.arange(T, device=x.device)], seen + T

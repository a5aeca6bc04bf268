"""Cross-entropy of a linear map, with all logits at once."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.checks import check_choice
from chimeralab_kernels.precision import wide


def linear_cross_entropy(
    h: Tensor,  # M D
    weight: Tensor,  # V D
    target: Tensor,  # M
    reduction: str = "mean",
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    check_choice("linear_cross_entropy", "reduction", reduction, ("mean", "sum"))
    counted = target != ignore_index
    logits = h.to(wide(h)) @ weight.to(wide(h)).T
    log_z = logits.logsumexp(-1)
    chosen = logits.gather(-1, target.where(counted, 0).unsqueeze(-1)).squeeze(-1)
    loss = torch.where(counted, log_z - chosen + z_loss * log_z.square(), 0).sum()
    return loss / counted.sum().clamp(min=1) if reduction == "mean" else loss

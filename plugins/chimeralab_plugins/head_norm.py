"""The norm after a matrix state: each head by itself, as a group norm with a group for each head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def head_norm(y: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(y − mean) / √(var + eps) over V, then weight and bias over all heads; y: B T H V, to B T H·V.

    Runs in float32 or better and keeps the dtype of y.
    """
    wide = torch.promote_types(y.dtype, torch.float32)
    normed = F.layer_norm(y.to(wide), y.shape[-1:], eps=eps).flatten(-2) * weight.to(wide)
    return (normed if bias is None else normed + bias.to(wide)).to(y.dtype)

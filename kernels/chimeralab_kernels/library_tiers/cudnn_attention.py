"""Whole sequences by cuDNN's fused attention."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.checks import check_window


def attention(
    q: Tensor,  # B T H K
    k: Tensor,  # B S G K
    v: Tensor,  # B S G V
    causal: bool = True,
    window: int | None = None,
    sinks: Tensor | None = None,
    scale: float | None = None,
    q_offset: int | Tensor = 0,
) -> Tensor:
    check_window(causal, window)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    # The log of the denominators is what the backward pass starts from.
    found = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q,
        k,
        v,
        None,
        torch.is_grad_enabled(),
        0.0,
        causal,
        False,
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
    )
    return found[0].transpose(1, 2)

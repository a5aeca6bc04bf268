"""Cross-entropy of a linear map without ever holding all logits.

Rows go in blocks of at most `LOGITS` logits; the backward pass computes each block's logits again, so that
one number a row is all that is kept between the passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chimeralab_kernels.checks import check_choice
from chimeralab_kernels.precision import wide

LOGITS = 1 << 24
"""Logits held at a time: 64 MiB in float32."""


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
    share = counted.to(wide(h))  # what each row's loss counts for
    if reduction == "mean":
        share = share / counted.sum().clamp(min=1)
    target = target.where(counted, 0)
    rows = max(1, LOGITS // weight.shape[0])
    if len(target) <= rows:
        return _loss((h @ weight.T).to(wide(h)), target, share, z_loss)[0]
    return _Blocked.apply(h, weight, target, share, z_loss, rows)


def _loss(logits: Tensor, target: Tensor, share: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    log_z = logits.logsumexp(-1)
    loss = log_z - logits.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if z_loss:
        loss = loss + z_loss * log_z.square()
    return (loss * share).sum(), log_z


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, target: Tensor, share: Tensor, z_loss: float, rows: int) -> Tensor:
        total, log_z = share.new_zeros(()), []
        for block, t, s in zip(h.split(rows), target.split(rows), share.split(rows), strict=True):
            loss, z = _loss((block @ weight.T).to(share.dtype), t, s, z_loss)
            total = total + loss
            log_z.append(z)
        ctx.save_for_backward(h, weight, target, share, torch.cat(log_z))
        ctx.z_loss, ctx.rows = z_loss, rows
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, target, share, log_z = ctx.saved_tensors
        d_h, d_weight = [], torch.zeros_like(weight, dtype=share.dtype)
        blocks = (x.split(ctx.rows) for x in (h, target, share, log_z))
        for block, t, s, z in zip(*blocks, strict=True):
            # ∂/∂logits = share · (softmax · (1 + 2 z_loss log Z) − onehot)
            slope = torch.exp((block @ weight.T).to(z.dtype) - z.unsqueeze(-1))
            slope = slope * (1 + 2 * ctx.z_loss * z).unsqueeze(-1)
            slope = slope.scatter_add(-1, t.unsqueeze(-1), -torch.ones_like(z).unsqueeze(-1))
            slope = (slope * (grad * s).unsqueeze(-1)).to(h.dtype)
            d_h.append(slope @ weight)
            d_weight += slope.T @ block
        return torch.cat(d_h), d_weight.to(weight.dtype), None, None, None, None

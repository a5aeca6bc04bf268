"""AdamW over a model's parameter groups, and its learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch

from chimeralab.runs.spec import TrainSpec
from chimeralab.stack.model import StackModel


def adamw(model: StackModel, train: TrainSpec) -> torch.optim.AdamW:
    """Fused AdamW; each group keeps its own `lr_scale`, applied by `set_learning_rate`."""
    groups: list[dict[str, Any]] = [
        {
            "params": group.params,
            "weight_decay": train.weight_decay if group.weight_decay else 0.0,
            "lr_scale": group.lr_scale,
        }
        for group in model.param_groups()
    ]
    betas = (train.beta1, train.beta2)
    return torch.optim.AdamW(groups, lr=train.lr, betas=betas, fused=True, capturable=train.cuda_graph)


def learning_rate(step: int, train: TrainSpec) -> float:
    """Linear warm-up, then half a cosine down to `min_lr_ratio` of the peak at the last step. Steps from 0."""
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    span = max(1, train.steps - 1 - train.warmup_steps)
    fraction = min(1.0, (step - train.warmup_steps) / span)
    floor = train.min_lr_ratio
    return train.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fraction)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # one that a CUDA graph reads
            group["lr"].fill_(lr * group["lr_scale"])
        else:
            group["lr"] = lr * group["lr_scale"]

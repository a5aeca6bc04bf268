"""RMS norm, rotary embedding and SwiGLU by their formulas, summed in float32 or better."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.precision import wide


def rms_norm(x: Tensor, weight: Tensor | None, eps: float = 1e-6, gate: Tensor | None = None) -> Tensor:
    h = x.to(wide(x))
    if gate is not None:
        h = h * gate.to(h.dtype) * torch.sigmoid(gate.to(h.dtype))
    h = h / (h.square().mean(-1, keepdim=True) + eps).sqrt()
    return (h if weight is None else h * weight.to(h.dtype)).to(x.dtype)


def add_rms_norm(x: Tensor, other: Tensor, weight: Tensor | None, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    total = x + other
    return rms_norm(total, weight, eps), total


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.to(wide(x)).chunk(2, -1)
    cos, sin = cos.unsqueeze(-2).to(first.dtype), sin.unsqueeze(-2).to(first.dtype)  # over heads
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    g = gate.to(wide(gate))
    return (g * torch.sigmoid(g) * up.to(g.dtype)).to(gate.dtype)

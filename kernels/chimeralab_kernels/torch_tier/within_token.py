"""RMS norm, rotary embedding and SwiGLU in few passes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels.precision import wide


def rms_norm(x: Tensor, weight: Tensor | None, eps: float = 1e-6, gate: Tensor | None = None) -> Tensor:
    if gate is None and (weight is None or weight.dtype == x.dtype):
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    dtype = wide(x)  # the gated product is not rounded before it is normalised
    h = x.to(dtype) if gate is None else x.to(dtype) * F.silu(gate.to(dtype))
    return F.rms_norm(h, h.shape[-1:], None if weight is None else weight.to(dtype), eps).to(x.dtype)


def add_rms_norm(x: Tensor, other: Tensor, weight: Tensor | None, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    total = x + other
    return ops.rms_norm(total, weight, eps), total  # by whatever serves it


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    dtype = wide(x)
    first, second = x.to(dtype).chunk(2, -1)
    cos, sin = cos.unsqueeze(-2).to(dtype), sin.unsqueeze(-2).to(dtype)  # over heads
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up

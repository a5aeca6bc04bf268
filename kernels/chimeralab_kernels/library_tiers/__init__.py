"""Attention by the GPU kernels that come with torch, a tier each: `cudnn` before `flash`.

cuDNN's knows whole sequences. FlashAttention-2 knows windows and a prefix of keys too, and with a correction of its
softmax sinks. Which of them a call took is what `ops.explain` and a run's record say.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from chimeralab import Kernel

HALF = (torch.bfloat16, torch.float16)


class Call(NamedTuple):
    """What `ops.attention` was asked."""

    q: Tensor
    k: Tensor
    v: Tensor
    causal: bool = True
    window: int | None = None
    sinks: Tensor | None = None
    scale: float | None = None
    q_offset: int | Tensor = 0


def kernels() -> list[Kernel]:
    return [
        Kernel("attention", "cudnn", _cudnn, _cudnn_unsupported, priority=22, source="cuDNN's fused attention"),
        Kernel("attention", "flash", _flash, _flash_unsupported, priority=21, source="FlashAttention-2, 2307.08691"),
    ]


def _cudnn(*args: Any, **named: Any) -> Tensor:
    from chimeralab_kernels.library_tiers.cudnn_attention import attention

    return attention(*args, **named)


def _flash(*args: Any, **named: Any) -> Tensor:
    from chimeralab_kernels.library_tiers.flash_attention import attention

    return attention(*args, **named)


def _cudnn_unsupported(*args: Any, **named: Any) -> str | None:
    call = Call(*args, **named)
    q, k, v, window = call.q, call.k, call.v, call.window
    lacks = _lacks(q, k, v, major=9)
    if lacks is not None:
        return lacks
    T, S = q.shape[1], k.shape[1]
    if call.sinks is not None:
        return "has no sinks"
    if any(x.shape[-1] % 8 or x.shape[-1] > 256 for x in (k, v)):
        return "takes head sizes that are multiples of 8 up to 256"
    if q.dtype == torch.float16 and (k.shape[-1] > 128 or k.shape[-1] != v.shape[-1]):
        return "has been checked with these head sizes in bfloat16 alone"
    if call.causal and (isinstance(call.q_offset, Tensor) or call.q_offset != 0 or T != S or T == 1):
        return "takes causal attention over whole sequences alone"
    if window is not None and window < S:
        return "has no windows"
    return None


def _flash_unsupported(*args: Any, **named: Any) -> str | None:
    call = Call(*args, **named)
    q, k, v = call.q, call.k, call.v
    lacks = _lacks(q, k, v, major=8)
    if lacks is not None:
        return lacks
    if max(q.shape[-1], v.shape[-1]) > 256:
        return "takes head sizes up to 256"
    if call.causal and isinstance(call.q_offset, Tensor):
        return "takes a q_offset that is a number"
    if call.causal and call.q_offset + q.shape[1] > k.shape[1]:
        return "takes as many keys as the last query sees"
    return None


def _lacks(q: Tensor, k: Tensor, v: Tensor, major: int) -> str | None:
    if q.device.type != "cuda":
        return "needs a CUDA device"
    if torch.cuda.get_device_properties(q.device).major < major or torch.version.cuda is None:
        return f"needs an NVIDIA GPU of compute capability {major}.0"
    if q.dtype not in HALF or k.dtype != q.dtype or v.dtype != q.dtype:
        return "takes bfloat16 or float16"
    if q.numel() == 0 or k.numel() == 0:
        return "needs at least one token"
    return None

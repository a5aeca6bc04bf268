"""The ops whose time is that of their bytes, and the loss, whose bytes are its logits: one file of kernels each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from chimeralab import Kernel
from chimeralab_kernels.triton_tier import tunings
from chimeralab_kernels.triton_tier.machine import DTYPES, INTERPRETED, UNSEEN, machine_lacks

WIDEST = 16384
"""Columns of a row that one program holds."""
TUNINGS = {
    "short_convolution": (tunings.SHORT_CONVOLUTION,),
    "diagonal_scan": (tunings.DIAGONAL, tunings.DIAGONAL_COMPLEX),
    "wkv4": (tunings.WKV4,),
}


def kernels() -> list[Kernel]:
    return [
        _kernel("rms_norm", _rms_norm, _rms_norm_unsupported),
        _kernel("add_rms_norm", _add_rms_norm, _add_rms_norm_unsupported),
        _kernel("rotary", _rotary, _rotary_unsupported),
        _kernel("swiglu", _swiglu, _swiglu_unsupported),
        _kernel("short_convolution", _short_convolution, _short_convolution_unsupported),
        _kernel(
            "diagonal_scan",
            _diagonal_scan,
            _diagonal_scan_unsupported,
            "parallel scans of linear recurrences (arXiv 1709.04057)",
        ),
        _kernel("selective_scan", _selective_scan, _selective_scan_unsupported, "Mamba (arXiv 2312.00752)"),
        _kernel("wkv4", _wkv4, _wkv4_unsupported, "RWKV (arXiv 2305.13048)"),
        _kernel("rnn_scan", _rnn_scan, _rnn_scan_unsupported),
        _kernel(
            "linear_cross_entropy",
            _linear_cross_entropy,
            _linear_cross_entropy_unsupported,
            "after Liger (arXiv 2410.10989)",
        ),
    ]


def _kernel(op: str, function: Callable[..., Any], unsupported: Callable[..., str | None], source: str = "") -> Kernel:
    def reason(x: Tensor, *args: Any, **named: Any) -> str | None:
        lacks = machine_lacks(x)
        if lacks is None and x.numel() == 0:
            lacks = "needs at least one token"
        return lacks or unsupported(x, *args, **named)

    return Kernel(op, "triton", function, reason, source=source, tunings=TUNINGS.get(op, ()))


def _rms_norm(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.rms_norm import rms_norm

    return rms_norm(*args, **named)


def _add_rms_norm(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.rms_norm import add_rms_norm

    return add_rms_norm(*args, **named)


def _rotary(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.rotary import rotary

    return rotary(*args, **named)


def _swiglu(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.swiglu import swiglu

    return swiglu(*args, **named)


def _short_convolution(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.short_convolution import short_convolution

    return short_convolution(*args, **named)


def _diagonal_scan(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.diagonal_scan import diagonal_scan

    return diagonal_scan(*args, **named)


def _selective_scan(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.selective_scan import selective_scan

    return selective_scan(*args, **named)


def _wkv4(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.wkv4 import wkv4

    return wkv4(*args, **named)


def _rnn_scan(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.rnn_step import rnn_scan

    return rnn_scan(*args, **named)


def _linear_cross_entropy(*args: Any, **named: Any) -> Any:
    from chimeralab_kernels.triton_tier.linear_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(*args, **named)


def _dtypes(*tensors: Tensor | None) -> str | None:
    if all(x is None or x.dtype in DTYPES for x in tensors):
        return None
    return f"takes {', '.join(str(d) for d in DTYPES)}"


def _rms_norm_unsupported(
    x: Tensor, weight: Tensor | None, eps: float = 1e-6, gate: Tensor | None = None
) -> str | None:
    if x.shape[-1] > WIDEST:
        return f"takes rows of up to {WIDEST}"
    if gate is not None and gate.shape != x.shape:
        return "takes x and gate of one shape"
    if weight is not None and weight.shape != x.shape[-1:]:
        return "takes a weight for each column"
    return _dtypes(x, weight, gate)


def _add_rms_norm_unsupported(x: Tensor, other: Tensor, weight: Tensor | None, eps: float = 1e-6) -> str | None:
    if other.shape != x.shape:
        return "takes two tensors of one shape"
    if not INTERPRETED:
        return UNSEEN
    return _rms_norm_unsupported(x, weight) or _dtypes(other)


def _rotary_unsupported(x: Tensor, cos: Tensor, sin: Tensor) -> str | None:
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        return "has no gradient for angles"
    B, T, _, K = x.shape
    if any(angles.shape not in ((T, K // 2), (B, T, K // 2)) for angles in (cos, sin)):
        return "takes angles of T × K/2, or of B × T × K/2"
    return _dtypes(x, cos, sin)


def _swiglu_unsupported(gate: Tensor, up: Tensor) -> str | None:
    return _dtypes(gate, up) or (None if gate.shape == up.shape else "takes gate and up of one shape")


def _short_convolution_unsupported(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> str | None:
    if weight.shape[1] > 4:
        return "takes up to 4 taps"
    return _dtypes(x, weight, bias, initial_state)


def _diagonal_scan_unsupported(
    x: Tensor, log_decay: Tensor, initial_state: Tensor | None = None, cu_seqlens: Tensor | None = None
) -> str | None:
    if x.is_complex():
        return None if x.dtype == torch.complex64 else "takes complex64"
    if log_decay.is_complex():
        return "takes a complex decay with complex inputs alone"
    return _dtypes(x, log_decay, initial_state)


def _selective_scan_unsupported(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor | None = None,
    z: Tensor | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> str | None:
    if A.shape[1] > 64:
        return "takes up to 64 states a channel"
    return _dtypes(u, delta, A, B, C, skip, z, initial_state)


def _wkv4_unsupported(
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    bonus: Tensor,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> str | None:
    return _dtypes(k, v, decay, bonus, initial_state)


def _rnn_scan_unsupported(
    x: Tensor,
    weight: Tensor,
    cell: str,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> str | None:
    if x.shape[1] != 1 or cu_seqlens is not None:
        return "takes one token, as in decoding"
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias, initial_state)):
        return "has no gradients"
    return _dtypes(x, weight, bias, initial_state)


def _linear_cross_entropy_unsupported(
    h: Tensor,
    weight: Tensor,
    target: Tensor,
    reduction: str = "mean",
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> str | None:
    return _dtypes(h, weight)

"""Long convolution by FFT, and by a Toeplitz matrix where the sequence is tiny."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels.precision import full_precision, wide


def long_convolution(
    x: Tensor,  # B T D
    kernel: Tensor,  # D L
    skip: Tensor | None = None,  # D
    gate: Tensor | None = None,  # B T D
) -> Tensor:
    T, dtype = x.shape[1], wide(x)
    u = x.transpose(1, 2).to(dtype)  # B D T: transforms run along the last dimension
    taps = kernel[:, :T].to(dtype)
    y = _toeplitz(u, taps) if T <= ops.DIRECT else _fft(u, taps)
    y = y.transpose(1, 2)  # B T D
    if skip is not None:
        y = y + skip.to(dtype) * x.to(dtype)
    return (y if gate is None else y * gate.to(dtype)).to(x.dtype)


def _fft(u: Tensor, taps: Tensor) -> Tensor:
    T = u.shape[-1]
    n = ops.transform_length(T, taps.shape[-1])
    return torch.fft.irfft(torch.fft.rfft(u, n) * torch.fft.rfft(taps, n), n)[..., :T]


def _toeplitz(u: Tensor, taps: Tensor) -> Tensor:
    """One T × T matrix a channel, M[s, t] = taps[t - s]: zeros where s > t, so nothing of the future gets in."""
    T = u.shape[-1]
    padded = F.pad(taps, (T, T - taps.shape[-1]))  # D 2T: zeros before lag 0
    matrix = padded.unfold(-1, T, 1)[:, 1:].flip(1)  # D T T; row i of the windows starts at lag i - T
    with full_precision(u):
        return torch.bmm(u.transpose(0, 1), matrix).transpose(0, 1)

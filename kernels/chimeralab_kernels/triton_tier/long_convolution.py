"""Long convolution on the GPU by a Fourier transform in matrix products (a Monarch decomposition).

Modulo z^T + i the product of two real sequences of T numbers has the causal convolution as its real part: what passes T
comes back times −i. z^T + i is a product of G polynomials z^N − e^{−2πiφ}, φ = (g + ¼)/G. `split` takes x modulo each,
reading channels side by side and writing each channel's numbers side by side; `convolve` multiplies, one program a
channel and part; `join` puts the parts together, with skip and gate.

Source: FlashFFTConv (arXiv 2311.05908) for the decomposition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.first_call import differentiate, operator
from chimeralab_kernels.triton_tier.launch import power_of_two, strides
from chimeralab_kernels.triton_tier.monarch_fft import convolve, correlate, join, split

LARGEST = {True: 2048, False: 512}
"""Numbers of a part, which one program holds, in half precision and in float32."""


@dataclass(frozen=True)
class Cut:
    """T tokens as G parts of N = P Q numbers."""

    G: int
    N: int
    P: int
    half: bool

    @property
    def precision(self) -> str:
        return "tf32" if self.half else "tf32x3"

    @property
    def sizes(self) -> dict[str, Any]:
        return {"N": self.N, "P": self.P, "Q": self.N // self.P, "COMPLEX": self.G > 1, "PRECISION": self.precision}

    @property
    def stretches(self) -> int:
        return 1 if self.G == 1 else max(16, self.G)

    @property
    def sides(self) -> int:
        return 1 if self.G == 1 else max(16, 2 * self.G)

    def tile(self, *, by_token: bool) -> tuple[int, int]:
        """Tokens and channels that one program moves; `by_token`: it is tokens that lie side by side."""
        if self.G == 1:
            return 64, 64
        numbers = 1024 if self.G <= 8 else 512
        channels = 4 if by_token else 16
        return numbers // channels, channels


def cut_call(T: int, dtype: torch.dtype) -> Cut:
    length = max(256, power_of_two(T))
    half = dtype != torch.float32
    N = min(LARGEST[half], length)
    return Cut(length // N, N, 64 if N >= 1024 else 32 if N == 512 else 16, half)


def long_convolution(
    x: Tensor,  # B T D
    kernel: Tensor,  # D L
    skip: Tensor | None = None,  # D
    gate: Tensor | None = None,  # B T D
) -> Tensor:
    kernel = kernel.to(x.dtype)
    given = [t for t in (x, kernel, skip, gate) if t is not None]
    keeps = gate is not None and torch.is_grad_enabled() and any(t.requires_grad for t in given)
    return fused_long_convolution(x, kernel[:, : x.shape[1]], skip, gate, keeps)[0]


@lru_cache
def _tables(cut: Cut, device: torch.device) -> tuple[Tensor, ...]:
    """Cosines and sines of the parts' first matrices and twiddles, of the second matrix, and of `split` and `join`."""
    G, N, P, Q = cut.G, cut.N, cut.P, cut.N // cut.P

    def number(n: int) -> Tensor:
        return torch.arange(n, dtype=torch.float64)

    def both(turns: Tensor, dim: int) -> Tensor:
        return torch.stack([(2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()], dim)

    phase = (number(G) + 0.25) / G
    frequency = number(P)[:, None] + phase[:, None, None]  # G P 1
    inside = torch.float16 if cut.half else torch.float32
    first, twiddle = both(frequency * number(P) / P, 1), both(frequency * number(Q) / N, 1)  # G 2 P P, G 2 P Q
    second = both(number(Q)[:, None] * number(Q) / Q, 0)
    turns = both(phase[:, None] * number(G), 1)  # G 2 G: part, side, stretch
    apart = torch.zeros(cut.sides, cut.stretches, dtype=torch.float64)
    together = torch.zeros(cut.stretches, cut.sides, dtype=torch.float64)
    if G > 1:
        sign = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
        apart[: 2 * G, :G] = (turns * sign).reshape(2 * G, G)  # e^{−iθ}
        together[:G, : 2 * G] = (turns * sign).reshape(2 * G, G).T / G  # the real part of e^{iθ}
    return (
        first.to(device, inside),
        twiddle.to(device, torch.float32),
        second.to(device, inside),
        apart.to(device, torch.float32),
        together.to(device, torch.float32),
    )


def _parts(x: Tensor, cut: Cut, T: int, dtype: torch.dtype) -> Tensor:
    """Room for what `split` makes of x, B T D."""
    B, _, D = x.shape
    return x.new_empty((D, B, T) if cut.G == 1 else (D, B, cut.G, 2, cut.N), dtype=dtype)


def _split(x: Tensor, gate: Tensor | None, cut: Cut, dtype: torch.dtype) -> Tensor:
    B, T, D = x.shape
    parts = _parts(x, cut, T, dtype)
    tokens, channels = cut.tile(by_token=x.stride(1) == 1 and D > 1)
    split[(-(-cut.N // tokens) * -(-D // channels) * B,)](
        x, gate, parts, _tables(cut, x.device)[3], *x.stride(), *strides(gate), B, T, D,
        N=cut.N, G=cut.G, GP=cut.stretches, R=cut.sides, BT=tokens, BD=channels, GATED=gate is not None,
        PRECISION=cut.precision,
    )  # fmt: skip
    return parts


def _join(
    parts: Tensor,
    y: Tensor,  # B T D
    cut: Cut,
    *,
    x: Tensor | None = None,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    mixed: Tensor | None = None,
    inputs: Tensor | None = None,
    d_gate: Tensor | None = None,
) -> Tensor:
    """Fills y; returns the gradient of skip, empty where there is none."""
    B, T, D = y.shape
    tokens, channels = cut.tile(by_token=y.stride(1) == 1 and D > 1)
    tiles = -(-cut.N // tokens)
    shares = y.new_empty((B * tiles, D) if inputs is not None and skip is not None else (0,), dtype=torch.float32)
    join[(tiles * -(-D // channels) * B,)](
        parts, _tables(cut, y.device)[4], x, skip, gate, mixed, y, inputs, d_gate, shares,
        *strides(x), *strides(gate), *strides(inputs), *y.stride(), B, T, D,
        N=cut.N, G=cut.G, GP=cut.stretches, R=cut.sides, BT=tokens, BD=channels,
        SKIPS=skip is not None, GATED=gate is not None, KEEPS=mixed is not None and inputs is None,
        BACKWARDS=inputs is not None, PRECISION=cut.precision,
    )  # fmt: skip
    return shares.sum(0)


def _kernel_parts(kernel: Tensor, cut: Cut, dtype: torch.dtype) -> tuple[Tensor, int, int]:
    """What programs read of the kernel, and its strides: itself where there is one part."""
    if cut.G == 1:
        return kernel, kernel.stride(0), kernel.stride(1)
    parts = _split(kernel.T.unsqueeze(0), None, cut, dtype)
    return parts, parts.stride(0), 1


@operator("chimeralab::long_convolution")
def fused_long_convolution(
    x: Tensor,  # B T D
    kernel: Tensor,  # D L, L ≤ T
    skip: Tensor | None,  # D
    gate: Tensor | None,  # B T D
    keeps: bool,
) -> tuple[Tensor, Tensor]:
    """y, and what it was before skip and gate if that is to be kept."""
    B, T, D = x.shape
    cut = cut_call(T, x.dtype)
    parts = _split(x, None, cut, x.dtype)
    taps, k_d, k_l = _kernel_parts(kernel, cut, x.dtype)
    product = torch.empty_like(parts)
    convolve[(D * cut.G,)](
        parts, taps, product, *_tables(cut, x.device)[:3], k_d, k_l, B, T, kernel.shape[1], cut.G, **cut.sizes
    )
    y, mixed = x.new_empty((B, T, D)), x.new_empty((B, T, D) if keeps else (0,))
    skip = None if skip is None else skip.contiguous()
    _join(product, y, cut, x=x, skip=skip, gate=gate, mixed=mixed if keeps else None)
    return y, mixed


@operator("chimeralab::long_convolution_backward")
def fused_long_convolution_backward(
    dy: Tensor, x: Tensor, kernel: Tensor, skip: Tensor | None, gate: Tensor | None, mixed: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, kernel, skip and gate; the last two empty where there is no such input."""
    B, T, D = x.shape
    cut, L = cut_call(T, x.dtype), kernel.shape[1]
    parts, slopes = _split(x, None, cut, x.dtype), _split(dy, gate, cut, x.dtype)
    taps, k_d, k_l = _kernel_parts(kernel, cut, x.dtype)
    d_parts = torch.empty_like(parts)
    d_taps = x.new_empty((D, L) if cut.G == 1 else (D, 1, cut.G, 2, cut.N), dtype=torch.float32)
    correlate[(D * cut.G,)](
        parts, slopes, taps, d_parts, d_taps, *_tables(cut, x.device)[:3], k_d, k_l, B, T, L, cut.G, **cut.sizes
    )
    dx = x.new_empty((B, T, D))
    d_gate = x.new_empty(0) if gate is None else gate.new_empty((B, T, D))
    skip_ = None if skip is None else skip.contiguous()
    d_skip = _join(d_parts, dx, cut, x=dy, skip=skip_, gate=gate, mixed=mixed, inputs=x, d_gate=d_gate)
    if cut.G > 1:
        d_kernel = d_taps.new_empty((D, L))
        _join(d_taps, d_kernel.T.unsqueeze(0), cut)
        d_taps = d_kernel
    return dx, d_taps.to(kernel.dtype), x.new_empty(0) if skip is None else d_skip.to(skip.dtype), d_gate


@fused_long_convolution.register_fake
def _(x: Tensor, kernel: Tensor, skip: Tensor | None, gate: Tensor | None, keeps: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape if keeps else (0,))


@fused_long_convolution_backward.register_fake
def _(
    dy: Tensor, x: Tensor, kernel: Tensor, skip: Tensor | None, gate: Tensor | None, mixed: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        kernel.new_empty(kernel.shape),
        x.new_empty(0) if skip is None else skip.new_empty(skip.shape),
        x.new_empty(0) if gate is None else gate.new_empty(gate.shape),
    )


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], output[1])


def _differentiate(ctx: Any, dy: Tensor, _: Any) -> tuple:
    x, kernel, skip, gate, mixed = ctx.saved_tensors
    dx, d_kernel, d_skip, d_gate = fused_long_convolution_backward(dy, x, kernel, skip, gate, mixed)
    return dx, d_kernel, None if skip is None else d_skip, None if gate is None else d_gate, None


differentiate(fused_long_convolution, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.long_convolution)
def _flops(x: Any, kernel: Any, *_: Any, **__: Any) -> int:
    (B, T, D), L = x, kernel[1]
    return int(ops.long_convolution_cost(D, L, sequences=B).prefill_flops(T) * T)


@register_flop_formula(torch.ops.chimeralab.long_convolution_backward)
def _backward_flops(dy: Any, x: Any, kernel: Any, *_: Any, **__: Any) -> int:
    return 2 * _flops(x, kernel)

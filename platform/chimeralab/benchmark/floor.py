"""The least time that a call can take: its bytes at the speed of a copy, or its matrix products at their speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chimeralab.op_cases import OpCase, Size
from chimeralab.runs.device import matmul_rate, synchronize


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at most: bytes read and written by a copy, FLOP/s of a matrix product in the dtype."""

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class Floor:
    """Milliseconds of the forward pass, and of forward and backward pass together."""

    forward_ms: float
    both_ms: float


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measured here and now, in about a second."""
    return Ceilings(_copy_rate(device), matmul_rate(device, dtype))


def _copy_rate(device: torch.device) -> float:
    source = torch.ones((1 << 32 if device.type == "cuda" else 1 << 27) // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def floor(case: OpCase, size: Size, inputs: Sequence[Tensor], output: Tensor, at_most: Ceilings) -> Floor:
    """Each input is read once and the output written once; backwards the inputs and the output's gradient are read and
    the inputs' gradients written. Backward products are twice the forward pass's.

    Args:
        inputs: all tensors that come in.
        output: what the op is called for; final states are not counted.
    """
    read = sum(x.nbytes for x in inputs)
    written = sum(x.nbytes for i, x in enumerate(inputs) if i not in case.constants and differentiable(x))
    products = case.products(size) / at_most.flops_per_second
    forward = max((read + output.nbytes) / at_most.bytes_per_second, products)
    backward = max((read + output.nbytes + written) / at_most.bytes_per_second, 2 * products)
    return Floor(forward * 1e3, (forward + backward) * 1e3)


def differentiable(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()

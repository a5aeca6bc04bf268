"""Sizes of launches, and tensors as kernels read them."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def matrix_size(n: int) -> int:
    """The smallest power of two that is at least n and that a matrix unit takes; n may be a symbol of torch.compile."""
    size = 16
    while size < n:
        size *= 2
    return size


def processors(x: Tensor) -> int:
    """Streaming multiprocessors of the device that holds x; few in the interpreter, which runs one at a time."""
    return _processors(x.device.index or 0) if x.is_cuda else 2


@lru_cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def rows_of(x: Tensor) -> Tensor:
    """x as a matrix whose rows lie apart by one stride: a view where the strides allow it, otherwise a copy."""
    x = x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
    return x.reshape(-1, x.shape[-1])


def unit_stride(x: Tensor) -> Tensor:
    """x with its last dimension contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def strides(x: Tensor | None) -> tuple[int, ...]:
    """Those of the first three dimensions; zeros for no tensor."""
    return (0, 0, 0) if x is None else x.stride()[:3]


def fill(x: Tensor, columns: int, rows: int | None = None) -> Tensor:
    """Zeros behind the last dimension, and the one before it, up to these sizes."""
    missing = [0, columns - x.shape[-1]] + ([] if rows is None else [0, rows - x.shape[-2]])
    return F.pad(x, missing) if any(missing) else x


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether a call needs its gradients."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def in_sixteens(x: Tensor) -> Tensor:
    """x with its last dimension contiguous and every row at a multiple of 16 bytes, copied where it is not so.

    Loads of 16 bytes are quicker, and what Triton 3.6 makes of odd strides has read outside memory.
    """
    odd = 16 // x.element_size() - 1
    aligned = x.data_ptr() % 16 == 0 and all(x.stride(i) & odd == 0 for i in range(x.dim() - 1) if x.shape[i] > 1)
    return x if aligned and (x.stride(-1) == 1 or x.shape[-1] == 1) else x.clone(memory_format=torch.contiguous_format)


def aligned(q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, *more: Tensor | None) -> tuple[Tensor | None, ...]:
    """All of them `in_sixteens`, but a decay by head (B T H) or one that channels share, which stays as it is."""
    shared = decay is None or decay.dim() == 3 or decay.stride(-1) == 0
    rows = tuple(None if x is None else in_sixteens(x) for x in more)
    return in_sixteens(q), in_sixteens(k), in_sixteens(v), decay if shared else in_sixteens(decay), *rows

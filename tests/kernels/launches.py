"""What Triton kernels are launched with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from torch import Tensor
from triton.runtime.jit import KernelInterface


class Launch(NamedTuple):
    kernel: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@contextmanager
def launches() -> Iterator[list[Launch]]:
    """Within the block launches are noted, and made."""
    found: list[Launch] = []
    whole = KernelInterface.__getitem__

    def note(kernel: Any, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> Any:
            found.append(Launch(kernel.__name__, arguments, options))
            return whole(kernel, grid)(*arguments, **options)

        return launch

    with patch.object(KernelInterface, "__getitem__", note):
        yield found


def odd_rows(found: list[Launch], columns: int) -> set[str]:
    """Kernels that were given rows of so many columns that do not lie at multiples of 16 bytes."""

    def is_odd(x: Tensor) -> bool:
        strides = [x.stride(i) for i in range(x.dim() - 1) if x.shape[i] > 1]
        return any(offset % 16 for offset in (x.data_ptr(), *(stride * x.element_size() for stride in strides)))

    rows = ((name, x) for name, given, _ in found for x in given if isinstance(x, Tensor) and x.dim() == 4)
    return {name for name, x in rows if x.shape[-1] == columns and is_odd(x)}

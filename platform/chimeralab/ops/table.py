"""The dispatch table: an op's call takes the kernel of the highest priority that supports its arguments."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from chimeralab.contracts.kernel import Kernel
from chimeralab.errors import KernelError, did_you_mean

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

CHUNK = 64
"""Tokens in a chunk of a chunked algorithm; costs are counted with it."""

_table: dict[str, tuple[Kernel, ...]] = {}
_pins: dict[str, str] = {}
_around: Callable[[Kernel, tuple], Any] | None = None


@dataclass(frozen=True)
class Call:
    """One call of an op that `record` saw; `flops` are the matrix products that its kernel did."""

    op: str
    tier: str
    flops: int


def load() -> None:
    """Fill the dispatch table from the plugins; the model builder does it before anything is traced."""
    if not _table:
        from chimeralab.plugins import registry

        by_op: dict[str, list[Kernel]] = {}
        for kernel in registry().kernels.values():
            by_op.setdefault(kernel.op, []).append(kernel)
        for op, kernels in by_op.items():
            _table[op] = tuple(sorted(kernels, key=lambda kernel: -kernel.priority))


def kernels(op: str) -> tuple[Kernel, ...]:
    """The kernels of an op, best first."""
    load()
    return _table.get(op, ())


def all_kernels() -> tuple[Kernel, ...]:
    """The kernels of every op."""
    load()
    return tuple(kernel for found in _table.values() for kernel in found)


def choose(op: str, *args: Any) -> Kernel:
    """The kernel that a call with these arguments takes.

    Raises:
        KernelError: none supports them, or the pinned one does not.
    """
    if not _table:
        load()
    pinned = _pins.get(op)
    for kernel in _table.get(op, ()):
        if pinned is not None and kernel.tier != pinned:
            continue
        if kernel.unsupported(*args) is None:
            return kernel
    raise _no_kernel(op, args)


def dispatch(op: str, *args: Any) -> Any:
    kernel = choose(op, *args)
    return kernel.function(*args) if _around is None else _around(kernel, args)


def explain(op: str, *args: Any) -> dict[str, str | None]:
    """For each tier, best first: why it cannot serve these arguments, or None when it can."""
    return {kernel.tier: kernel.unsupported(*args) for kernel in kernels(op)}


def check_pins(pins: Mapping[str, str]) -> None:
    """Raises KernelError: an op or tier that does not exist."""
    for op, tier in pins.items():
        load()
        if op not in _table:
            raise KernelError(f"unknown op {op!r}", place="kernels", remedy=did_you_mean(op, _table))
        tiers = [kernel.tier for kernel in kernels(op)]
        if tier not in tiers:
            raise KernelError(f"no kernel {tier!r}", place=f"kernels.{op}", remedy=did_you_mean(tier, tiers))


@contextmanager
def pin(pins: Mapping[str, str]) -> Iterator[None]:
    """Within the block each op named takes the kernel of that tier: `pin({"attention": "reference"})`."""
    check_pins(pins)
    before = dict(_pins)
    _pins.update(pins)
    try:
        yield
    finally:
        _pins.clear()
        _pins.update(before)


@contextmanager
def around(call: Callable[[Kernel, tuple], Any]) -> Iterator[None]:
    """Within the block `call(kernel, args)` stands in for every call of a kernel."""
    global _around
    before, _around = _around, call
    try:
        yield
    finally:
        _around = before


@contextmanager
def record() -> Iterator[list[Call]]:
    """Within the block every call is noted, with the matrix-product FLOPs that it did."""
    calls: list[Call] = []

    def note(kernel: Kernel, args: tuple) -> Any:
        with flop_counter() as counter:
            result = kernel.function(*args)
        calls.append(Call(kernel.op, kernel.tier, counter.get_total_flops()))
        return result

    with around(note):
        yield calls


def flop_counter() -> FlopCounterMode:
    """torch's counter of matrix-product FLOPs, taught FFTs, the CPU's attention and that causal means half."""
    from torch.utils.flop_counter import FlopCounterMode, flop_registry  # loads triton, which only counting needs

    aten = torch.ops.aten
    packets = (
        aten._scaled_dot_product_flash_attention_for_cpu,
        aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_efficient_attention,
        aten._scaled_dot_product_cudnn_attention,
    )
    mapping: dict[Any, Callable[..., int]] = dict.fromkeys(packets, _sdpa_flops)
    mapping |= {aten._fft_r2c: _real_fft_flops, aten._fft_c2r: _real_fft_flops, aten._fft_c2c: _fft_flops}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    # It copies torch's table; the operators of a kernel that is imported when first called come into it later.
    counter.flop_registry = ChainMap(counter.flop_registry, flop_registry)  # type: ignore[assignment]
    return counter


def _sdpa_flops(q: Any, k: Any, v: Any, *args: Any, is_causal: bool | None = None, **_: Any) -> int:
    B, H, T, K = q
    S, V = v[-2:]
    if is_causal is None:  # positional; where it stands differs from backend to backend, but it is the last True
        is_causal = any(a is True for a in args[-2:])
    pairs = T * (T + 1) // 2 if is_causal and T == S else T * S
    return 2 * B * H * pairs * (K + V)


def _real_fft_flops(x: Any, dim: list[int], norm: int, points: int | bool, *, out_shape: Any, **_: Any) -> int:
    """2.5 n log₂ n for each transform between n real numbers and n/2 + 1 complex ones."""
    real = x if isinstance(points, bool) else out_shape
    return _fft_flops(real, dim) // 2


def _fft_flops(x: Any, dim: list[int], *_: Any, **__: Any) -> int:
    points = math.prod(x[d] for d in dim)
    return round(5 * math.prod(x) * math.log2(points))


def _no_kernel(op: str, args: tuple) -> KernelError:
    found = kernels(op)
    if not found:
        return KernelError(f"no kernel is installed for op {op!r}", remedy="See `chimeralab plugins`")
    pinned = _pins.get(op)
    reasons = "; ".join(
        f"{kernel.tier}: {kernel.unsupported(*args)}" for kernel in found if pinned in (None, kernel.tier)
    )
    remedy = f"Unpin {op!r} or pick a case it supports" if pinned else ""
    return KernelError(f"no kernel can compute it ({reasons})", place=f"op {op}", remedy=remedy)

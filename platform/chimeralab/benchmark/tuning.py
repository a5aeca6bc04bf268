"""Which tiles a kernel is quickest with on this machine, among the few that it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from chimeralab.benchmark import clock
from chimeralab.benchmark.measure import CHECKED, Call, check_ops, errors
from chimeralab.benchmark.measure import sizes as sizes_of
from chimeralab.contracts.kernel import Kernel
from chimeralab.op_cases import OpCase, Size, cases
from chimeralab.ops import tiles
from chimeralab.ops.table import all_kernels

GAIN = 0.97
"""A choice replaces a kernel's own only if it takes this part of its time or less: the rest is noise."""


@dataclass(frozen=True)
class Trial:
    """What one choice took for forward and backward pass; `trouble` says why it cannot be taken."""

    case: str
    name: str
    shape: str
    values: Mapping[str, int]  # none are the kernel's own
    ms: float | None
    trouble: str = ""


def tune(
    names: Iterable[str] = (),
    sizes: Iterable[Size] = (),
    report: Callable[[Trial], None] = lambda _: None,
    checked: Size = CHECKED,
) -> tiles.Entries:
    """Try the choices of every kernel of the ops named, or of all, in typical calls of these sizes; of none, M and L on
    a GPU, S elsewhere.

    A choice must be as exact as the kernel's own values are: its errors against float64 may be twice theirs, in calls
    of the length of `checked` with the heads of each size. Time is summed over the sizes and over the cases in which a
    kernel asks for the same tile.

    Raises:
        SpecError: an op that does not exist.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    names, sizes = list(names), list(sizes) or sizes_of()
    check_ops(names)
    at = list(dict.fromkeys(replace(checked, heads=size.heads, head_dim=size.head_dim) for size in sizes))
    found: tiles.Entries = {}
    for kernel in all_kernels():
        if not kernel.tunings or (names and kernel.op not in names):
            continue
        asks: dict[tuple[str, str], list[OpCase]] = {}
        for case in cases(kernel.op):
            if Call(kernel, case, sizes[0], dtype, device).reason:
                continue
            with tiles.asked() as asked:
                for size in sizes:
                    Call(kernel, case, size, dtype, device).both()
            for key in asked:
                asks.setdefault(key, []).append(case)
        for (name, shape), asking in asks.items():
            best = _best(kernel, name, shape, asking, sizes, dtype, device, report, at)
            if best:
                found.setdefault(name, {})[shape] = best
    return found


def _best(
    kernel: Kernel,
    name: str,
    shape: str,
    asking: list[OpCase],
    sizes: list[Size],
    dtype: torch.dtype,
    device: torch.device,
    report: Callable[[Trial], None],
    checked: list[Size],
) -> tiles.Values:
    shown = "; ".join(case.name for case in asking)
    checks = [(case, size, errors(kernel, case, dtype, device, size)) for case in asking for size in checked]
    least = _time(kernel, asking, sizes, dtype, device)
    report(Trial(shown, name, shape, {}, least))
    least *= GAIN
    best: tiles.Values = {}
    for values in tiles.tunings()[name].choices:
        with tiles.trying({(name, shape): values}):
            try:
                for case, size, own in checks:
                    _require_exact(errors(kernel, case, dtype, device, size), own)
                ms = _time(kernel, asking, sizes, dtype, device)
            except Exception as error:  # it does not fit this GPU, or is wrong on it
                report(Trial(shown, name, shape, values, None, f"{type(error).__name__}: {error}"[:200]))
                continue
        report(Trial(shown, name, shape, values, ms))
        if ms < least:
            least, best = ms, dict(values)
    return best


def _require_exact(found: dict[str, float], own: dict[str, float]) -> None:
    for name, error in found.items():
        if error == float("inf") or error > max(2 * own[name], 1e-6):
            raise ValueError(f"{name} is off by {error:.1e}, with the kernel's own values by {own[name]:.1e}")


def _time(kernel: Kernel, asking: list[OpCase], sizes: list[Size], dtype: torch.dtype, device: torch.device) -> float:
    total = 0.0
    for case in asking:
        for size in sizes:
            call = Call(kernel, case, size, dtype, device)
            total += clock.replayed_ms(call.both) if device.type == "cuda" else clock.launched_ms(call.both, device)
    return total

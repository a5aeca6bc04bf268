"""The kernels of some ops timed on this machine, and kept in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch

from chimeralab.benchmark.floor import ceilings
from chimeralab.benchmark.measure import Measurement, check_ops, errors, first_call, measure, sizes, timed_kernels
from chimeralab.op_cases import cases
from chimeralab.runs.device import name


@dataclass
class KernelTimes:
    """What was measured on one machine; newer figures of a kernel on a case at a size replace older ones."""

    device: str = ""
    date: str = ""
    measurements: list[Measurement] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Those of the file; none where there is no file."""
        if not path.exists():
            return cls()
        read = json.loads(path.read_text(encoding="utf-8"))
        return cls(read["device"], read["date"], [Measurement(**m) for m in read["measurements"]])

    def save(self, path: Path) -> None:
        written = path.with_suffix(".new")
        written.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        written.replace(path)

    def joined(self, newer: KernelTimes) -> KernelTimes:
        """Both, if they are of one machine; otherwise the newer."""
        if self.device != newer.device:
            return newer
        kept = {m.key: m for m in [*self.measurements, *newer.measurements]}
        return KernelTimes(newer.device, newer.date, list(kept.values()))


def time_kernels(
    names: Iterable[str] = (), size: str | None = None, report: Callable[[Measurement], None] = lambda _: None
) -> KernelTimes:
    """Every kernel on every case of the ops named, or of all, on the GPU if there is one; `report` is told of each.

    Args:
        size: one of SIZES; "M" on a GPU and "S" elsewhere if not given.

    Raises:
        SpecError: an op or a size that does not exist.
    """
    names = list(names)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = size or ("M" if device.type == "cuda" else "S")
    check_ops(names)
    sizes([size])
    at_most = ceilings(device, dtype)
    found = KernelTimes(name(device), time.strftime("%Y-%m-%d"))
    for case in cases():
        if names and case.op not in names:
            continue
        for kernel in timed_kernels(case.op):
            try:
                seconds = first_call(kernel, case, size, dtype, device)
                wrong = errors(kernel, case, dtype, device) if seconds is not None else {}
                measured = measure(kernel, case, size, dtype, device, at_most)
                measured.first_call_seconds, measured.errors = seconds, wrong
            except Exception as error:  # the others are timed all the same
                measured = Measurement(case.op, case.form, kernel.tier, size, str(dtype).removeprefix("torch."))
                measured.failure = f"{type(error).__name__}: {error}"[:300]
            found.measurements.append(measured)
            report(measured)
    return found

"""The device of a run: which one, how much memory it has, how fast it multiplies matrices."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def pick(gpus: float) -> torch.device:
    """The GPU that was granted, else the CPU."""
    return torch.device("cuda", 0) if gpus > 0 and torch.cuda.is_available() else torch.device("cpu")


def name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


def precision(asked: str, device: torch.device) -> torch.dtype:
    if asked == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[asked]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Peak bytes since it was made: allocated on a GPU; resident beyond the start on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._base = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                _RESET.write_text("5")  # Linux: the high-water mark starts again at what is resident now
            self._base = _resident("VmRSS:")

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident("VmHWM:") - self._base)


def _resident(field: str) -> int:
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    import psutil

    return psutil.Process(os.getpid()).memory_info().rss


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product here and now: the ceiling that utilisation is measured against."""
    n = 8192 if device.type == "cuda" else 1024
    draws = torch.Generator(device)  # its own: a resumed run goes on with the random numbers of before
    a, b = (torch.randn(n, n, device=device, generator=draws).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best

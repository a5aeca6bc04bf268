"""How long a call takes, and what memory it needs beyond what was there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from chimeralab.runs.device import synchronize

Call = Callable[[], object]
FEWEST_REPEATS, MOST_REPEATS, SECONDS = 3, 50, 0.1  # of measuring, for each figure


def first_call_seconds(call: Call, device: torch.device) -> float:
    """With all that is compiled for it."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def launched_ms(call: Call, device: torch.device) -> float:
    """Median of calls as a program makes them, launches included."""
    call()
    if device.type == "cuda":
        return _events_ms(call)
    times: list[float] = []
    while len(times) < FEWEST_REPEATS or (sum(times) < SECONDS and len(times) < MOST_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def replayed_ms(call: Call) -> float:
    """Median of replays of a CUDA graph of one call: the work without its launches."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return _events_ms(graph.replay)


def _events_ms(call: Call) -> float:
    times: list[float] = []
    while len(times) < FEWEST_REPEATS or (sum(times) < SECONDS * 1e3 and len(times) < MOST_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def extra_mib(call: Call) -> float:
    """MiB on the GPU at the peak of one call beyond what was there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20

"""Times, memory and errors of kernels on the machine at hand, each beside the least time that its bytes allow."""

from chimeralab.benchmark.floor import Ceilings, Floor, ceilings, floor
from chimeralab.benchmark.measure import (
    CHECKED,
    SIZES,
    Measurement,
    errors,
    exact_kernel,
    first_call,
    measure,
    timed_kernels,
)
from chimeralab.benchmark.times import KernelTimes, time_kernels

__all__ = [
    "CHECKED",
    "SIZES",
    "Ceilings",
    "Floor",
    "KernelTimes",
    "Measurement",
    "ceilings",
    "errors",
    "exact_kernel",
    "first_call",
    "floor",
    "measure",
    "time_kernels",
    "timed_kernels",
]

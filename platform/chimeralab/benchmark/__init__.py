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
    sizes,
    timed_kernels,
)
from chimeralab.benchmark.times import KernelTimes, time_kernels
from chimeralab.benchmark.tuning import Trial, tune

__all__ = [
    "CHECKED",
    "SIZES",
    "Ceilings",
    "Floor",
    "KernelTimes",
    "Measurement",
    "Trial",
    "ceilings",
    "errors",
    "exact_kernel",
    "first_call",
    "floor",
    "measure",
    "sizes",
    "time_kernels",
    "timed_kernels",
    "tune",
]

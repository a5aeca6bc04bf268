"""Random numbers by position: draw n of a stream is computed from n alone.

A batch must be a pure function of (seed, split, step, rank), and the same in every process and library version.
NumPy promises that only for its bit streams, not for `integers` or `choice`, so the few draws that the tasks need
are made here, from the counter-based generator SplitMix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def key(*parts: object) -> int:
    """The name of a stream, 64 bits, from what it belongs to."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def bits(stream: int, positions: NDArray) -> NDArray[np.uint64]:
    """The draws at `positions` (from 0, any shape): output `position` of SplitMix64 seeded with `stream`."""
    with np.errstate(over="ignore"):
        z = np.uint64(stream) + (positions.astype(np.uint64) + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def below(draws: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """Integers in [0, n); off uniform by at most n / 2⁶⁴."""
    return (draws % np.uint64(n)).astype(np.int64)


def unit(draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in (0, 1), the ends never reached."""
    return ((draws >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


@lru_cache(maxsize=4)
def order(stream: int, n: int) -> NDArray[np.int64]:
    """A random order of 0 … n-1."""
    shuffled = np.argsort(bits(stream, np.arange(n)), kind="stable")
    shuffled.flags.writeable = False
    return shuffled

"""How scans walk through time: rows of channels, several loads under way before the first is used, in segments.

A program holds a block of channels and goes from token to token, so that a scan costs nothing but its own arithmetic.
Where batch × channels are too few programs to fill the GPU, time is cut into segments that run side by side: each
one's own end and decay first, a join of these, then the scan that writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from chimeralab import Tuning, ops
from chimeralab_kernels.triton_tier.launch import power_of_two, processors


@triton.jit
def present(channel, t, begin, end, D):
    """The channels that exist, at a time within begin … end − 1."""
    return channel < tl.where((t >= begin) & (t < end), D, 0)


@triton.jit
def rows(x, first, x_t, x_d, channel, begin, end, D, U: tl.constexpr, STEP: tl.constexpr):
    """Rows first, first + STEP, … of x as they are stored, zero outside: U loads with nothing between them."""
    found = ()
    for i in tl.static_range(U):
        t = first + i * STEP
        found = found + (tl.load(x + t * x_t + channel * x_d, present(channel, t, begin, end, D), 0.0),)  # noqa: RUF005
    return found


@dataclass(frozen=True)
class Walk:
    """Channels of a program, tokens of a segment, rows read ahead."""

    block: int
    blocks: int
    length: int
    segments: int
    ahead: int


def walk(
    x: Tensor,
    channels: int,
    *,
    block: int,
    warps: int = 16,
    shortest: int = 64,
    ahead: int = 8,
    tuning: Tuning | None = None,
) -> Walk:
    """Segments enough for so many `warps` on each multiprocessor, or as measured for this machine. x: B T …"""
    B, T = x.shape[:2]
    if tuning is not None:
        found = ops.tiles.chosen(tuning, str(x.dtype)[6:])
        block, warps = found.get("block", block), found.get("warps", warps)
    block = min(power_of_two(channels), block)
    blocks = -(-channels // block)
    wanted = max(1, warps * processors(x) // (B * blocks))
    length = max(shortest, -(-T // wanted))
    length = -(-length // 8) * 8
    return Walk(block, blocks, length, -(-T // length), ahead)

"""How scans walk through time: rows of channels, several loads under way before the first is used, in segments.

A program holds a block of channels and goes from token to token, so that a scan costs nothing but its own arithmetic.
Where batch × channels are too few programs to fill the GPU, time is cut into segments that run side by side: each
one's own end and decay first, a join of these, then the scan that writes.

Packed sequences are cut the same way, each by itself: a segment lies in one sequence. Where segments lie is then a
table that is computed on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton.language as tl
from torch import Tensor

from chimeralab import Tuning, ops
from chimeralab_kernels.triton_tier.first_call import jit
from chimeralab_kernels.triton_tier.launch import power_of_two, processors


@jit
def present(channel, t, begin, end, D):
    """The channels that exist, at a time within begin … end − 1."""
    return channel < tl.where((t >= begin) & (t < end), D, 0)


@jit
def rows(x, first, x_t, x_d, channel, begin, end, D, U: tl.constexpr, STEP: tl.constexpr):
    """Rows first, first + STEP, … of x as they are stored, zero outside: U loads with nothing between them."""
    found = ()
    for i in tl.static_range(U):
        t = first + i * STEP
        found = found + (tl.load(x + t * x_t + channel * x_d, present(channel, t, begin, end, D), 0.0),)  # noqa: RUF005
    return found


@jit
def piece(table, part, segments, length, T, PACKED: tl.constexpr):
    """Of segment `part` of all: batch entry, where it begins and stops, its sequence, where that begins and ends."""
    if PACKED:
        at = table + part * 5
        b = tl.zeros((), tl.int64)
        begin, stop = tl.load(at), tl.load(at + 1)
        sequence, origin, end = tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)
    else:
        b = (part // segments).to(tl.int64)
        begin = (part % segments * length).to(tl.int64)
        stop = tl.minimum(begin + length, T)
        sequence, origin, end = b, tl.zeros((), tl.int64), stop - stop + T
    return b, begin, stop, sequence, origin, end


@jit
def pieces(firsts, sequence, segments, PACKED: tl.constexpr):
    """A sequence's first segment, and the one after its last."""
    if PACKED:
        first, last = tl.load(firsts + sequence), tl.load(firsts + sequence + 1)
    else:
        first = sequence * segments
        last = first + segments
    return first, last


@dataclass(frozen=True)
class Walk:
    """How a call is cut: channels of a program, tokens of a segment at most, rows read ahead."""

    block: int
    blocks: int
    length: int
    segments: int  # of a batch entry; packed, as many as there can be
    ahead: int
    batch: int
    sequences: int
    table: Tensor | None = None  # packed: segments 5, int64, what `piece` gives; behind the last segment no tokens
    firsts: Tensor | None = None  # packed: sequences + 1, int64

    @property
    def parts(self) -> int:
        """Segments of all batch entries: the rows of what each starts from and ends with."""
        return self.batch * self.segments

    @property
    def joined(self) -> bool:
        """Whether a segment may begin within a sequence."""
        return self.parts > self.sequences

    @property
    def packed(self) -> bool:
        return self.table is not None

    def first(self, rows: Tensor) -> Tensor:
        """Of rows by segment, each sequence's first."""
        if self.firsts is not None:
            return rows[self.firsts[:-1]]
        return rows.unflatten(0, (self.batch, self.segments))[:, 0].contiguous()

    def last(self, rows: Tensor) -> Tensor:
        """Of rows by segment, each sequence's last."""
        if self.firsts is not None:
            return rows[self.firsts[1:] - 1]
        return rows.unflatten(0, (self.batch, self.segments))[:, -1].contiguous()


def walk(
    x: Tensor,
    channels: int,
    cu_seqlens: Tensor | None = None,
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
    ahead = min(ahead, power_of_two(T))  # one token is one step, not eight of which seven do nothing
    length = min(max(shortest, -(-T // wanted)), T)
    length = -(-length // ahead) * ahead
    if cu_seqlens is None:
        return Walk(block, blocks, length, -(-T // length), ahead, B, B)
    sequences = len(cu_seqlens) - 1
    segments = sequences + (T // length if length < T else 0)
    table, firsts = _cut(cu_seqlens.to(x.device, torch.int64), length, segments)
    return Walk(block, blocks, length, segments, ahead, 1, sequences, table, firsts)


def _cut(bounds: Tensor, length: int, segments: int) -> tuple[Tensor, Tensor]:
    """The segments of packed sequences, one at least for each, so that an empty one hands on its state."""
    counts = ((bounds.diff() + length - 1) // length).clamp(min=1)
    firsts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    n = torch.arange(segments, device=bounds.device)
    sequence = torch.searchsorted(firsts[1:], n, right=True).clamp(max=len(counts) - 1)
    origin, end = bounds[sequence], bounds[sequence + 1]
    begin = torch.minimum(origin + (n - firsts[sequence]) * length, end)
    return torch.stack([begin, torch.minimum(begin + length, end), sequence, origin, end], 1), firsts

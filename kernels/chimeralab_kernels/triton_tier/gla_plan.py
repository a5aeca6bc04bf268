"""How gated linear attention is cut into programs.

The time axis is cut into chunks, and into segments of whole chunks that run side by side. A segment costs another
reading of its keys and values (to learn the state that the next one starts from), so there are only as many as it
takes to fill the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PROCESSORS = 132
"""Streaming multiprocessors to fill: an H100's or H200's."""


@dataclass(frozen=True)
class Launch:
    """Tile sizes and launch parameters of one kernel; block_k and block_v in powers of two."""

    block_k: int
    block_v: int
    warps: int
    stages: int

    def blocks(self, key_dim: int, value_dim: int) -> int:
        return -(-key_dim // self.block_k) * -(-value_dim // self.block_v)


@dataclass(frozen=True)
class Plan:
    chunk: int
    segments: int
    chunks_a_segment: int
    output: Launch  # y, scanning forwards
    states: Launch  # states alone
    gradient: Launch  # scanning backwards

    @property
    def chunks(self) -> int:
        return self.segments * self.chunks_a_segment


def power_of_two(n: int) -> int:
    """The least one that is no less than n and that a matrix unit takes."""
    size = 16
    while size < n:
        size *= 2
    return size


def plan(batch: int, heads: int, T: int, key_dim: int, value_dim: int, dtype: torch.dtype) -> Plan:
    K, V = power_of_two(key_dim), power_of_two(value_dim)
    single = dtype == torch.float32  # twice the bytes: half the chunk fits
    chunk = power_of_two(min(T, 32 if single else 64))
    chunks = -(-T // chunk)
    # A program that scans backwards holds a K × V tile in float32: a quarter of a processor's registers at most.
    tile_v = min(V, max(16, min(128, (1 << 14) // K)))
    large = K * tile_v >= 1 << 13
    wanted = PROCESSORS if large else 2 * PROCESSORS
    segments = max(1, min(wanted // (batch * heads), chunks // 8))
    chunks_a_segment = -(-chunks // segments)
    segments = -(-chunks // chunks_a_segment)
    stages = 1 if single else 2
    return Plan(
        chunk,
        segments,
        chunks_a_segment,
        output=Launch(K, min(V, 64), 4, stages),
        states=Launch(min(K, 64), min(V, 64), 4, stages),
        gradient=Launch(K, tile_v, 8 if large else 4, 1),
    )

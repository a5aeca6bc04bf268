"""How the delta rule is cut into programs; docs/kernels.md has the measurements behind the numbers.

Time is cut into chunks and, where there are too few heads to fill the GPU, into segments of whole chunks that run side
by side. What a segment makes of the state it meets is a K × K matrix, so segments cost two more scans: one for these
matrices, one for each segment's own state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chimeralab_kernels.triton_tier.gla_plan import PROGRAMS, power_of_two

LEAST_SEGMENTS = 4
"""Fewer are not worth the two scans."""


def sizes_lack(key_dim: int, value_dim: int, dtype: torch.dtype, *, by_channel: bool) -> str | None:
    """Why there is no kernel for heads of these sizes, with a decay by channel (or a and b) or without; or None."""
    sizes = (key_dim, value_dim)
    if max(sizes) > 256:
        return "takes head sizes up to 256"
    if dtype == torch.float32:
        return None
    # In half precision Triton 3.6 gets other sizes wrong now and then; docs/kernels.md.
    if any(size < 16 or size & (size - 1) for size in sizes):
        return "takes head sizes of 16, 32, 64, 128 or 256 in half precision"
    if by_channel and value_dim not in (64, 128):
        return "has been checked by channel, in half precision, for 64 and 128 values a head alone"
    return None


@dataclass(frozen=True)
class Tile:
    """How many columns of the state one program of the scan holds, and its launch parameters."""

    block_v: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Plan:
    chunk: int
    chunks: int
    segments: int
    chunks_a_segment: int


def plan(batch: int, heads: int, T: int, key_dim: int, value_dim: int, dtype: torch.dtype) -> Plan:
    single, K = dtype == torch.float32, power_of_two(key_dim)
    chunk = 16 if single else 64
    chunks = -(-T // chunk)
    block_v = scan_tile(K, value_dim, dtype, rows=True, general=False, output=True).block_v
    segments = min(PROGRAMS // (batch * heads * -(-value_dim // block_v)), chunks // 8)
    if segments < LEAST_SEGMENTS or K > 128:  # the matrices of larger heads do not fit a processor
        segments = 1
    chunks_a_segment = -(-chunks // segments)
    return Plan(chunk, chunks, -(-chunks // chunks_a_segment), chunks_a_segment)


@dataclass(frozen=True)
class WithinTile:
    """How many channels and values a program treats at once of what chunks do by themselves; launch parameters."""

    block_k: int
    block_v: int
    warps: int


def within_tile(dtype: torch.dtype) -> WithinTile:
    """For a decay by channel, heads of any size. In half precision blocks of 32 channels read outside their memory."""
    return WithinTile(32, 64, 4) if dtype == torch.float32 else WithinTile(64, 64, 8)


def scan_tile(key_dim: int, value_dim: int, dtype: torch.dtype, *, rows: bool, general: bool, output: bool) -> Tile:
    """For a scan whose operands carry row factors or not, with a and b or not, that writes y or not."""
    single, K, V = dtype == torch.float32, power_of_two(key_dim), power_of_two(value_dim)
    if single or K > 128:
        return Tile(min(V, 32), 4, 2 if rows and not single else 1)
    if rows or V <= 64 or (general and output):
        return Tile(min(V, 64), 4, 2)
    return Tile(128, 8, 3 if output else 2)  # operands of their own fill the shared memory: more columns share them

"""How gated linear attention is cut into programs; docs/kernels.md has the measurements behind the numbers.

The time axis is cut into chunks, and into segments of whole chunks that run side by side. A segment costs another
reading of its keys and values (to learn the state that the next one starts from), so there are only as many as it
takes to fill the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from chimeralab import Tuning, ops
from chimeralab_kernels.triton_tier.launch import matrix_size
from chimeralab_kernels.triton_tier.tunings import GRADIENTS, OUTPUT, STATE, WITHIN, WITHIN_BACKWARD

PROGRAMS = 2 * 132
"""Programs to run at once: two on each streaming multiprocessor of an H100 or H200."""


@dataclass(frozen=True)
class Tile:
    """What part of the K × V state one program holds, and its launch parameters."""

    block_k: int
    block_v: int
    warps: int
    stages: int

    def blocks(self, key_dim: int, value_dim: int) -> int:
        return -(-key_dim // self.block_k) * -(-value_dim // self.block_v)


@lru_cache
def _shape_class(key_dim: int, value_dim: int, dtype: torch.dtype) -> str:
    return f"{key_dim} × {value_dim} {str(dtype)[6:]}"


def _tuned(tuning: Tuning, own: Tile, key_dim: int, value_dim: int, dtype: torch.dtype) -> Tile:
    """With what was measured for this machine; blocks no larger than the head."""
    # int: while torch.compile traces, sizes may be symbols; heads are then fixed in what it makes
    found = ops.tiles.chosen(tuning, _shape_class(int(key_dim), int(value_dim), dtype))
    return Tile(
        min(found.get("block_k", own.block_k), matrix_size(key_dim)),
        min(found.get("block_v", own.block_v), matrix_size(value_dim)),
        found.get("warps", own.warps),
        found.get("stages", own.stages),
    )


def output_tile(key_dim: int, value_dim: int, dtype: torch.dtype) -> Tile:
    """For a scan that reads the state: all of K."""
    K, single = matrix_size(key_dim), dtype == torch.float32
    block_v = 32 if K > 128 or single else 64  # 64 float32 registers of state a thread
    return _tuned(OUTPUT, Tile(K, block_v, 4, 1 if single else 2), key_dim, value_dim, dtype)


def state_tile(key_dim: int, value_dim: int, dtype: torch.dtype) -> Tile:
    """For a scan that only writes it."""
    single = dtype == torch.float32
    own = Tile(64 if single else 128, 64, 4, 1 if single else 3)
    return _tuned(STATE, own, key_dim, value_dim, dtype)


def gradient_tile(key_dim: int, value_dim: int, dtype: torch.dtype) -> Tile:
    """For dq or dk of a chunk, from the state and its gradient."""
    single = dtype == torch.float32
    own = Tile(64 if single else 128, 32 if single else 64, 4, 1 if single else 2)
    return _tuned(GRADIENTS, own, key_dim, value_dim, dtype)


def within_tile(key_dim: int, value_dim: int, dtype: torch.dtype, *, backward: bool = False) -> Tile:
    """For what chunks do by themselves when the decay is by channel."""
    own = Tile(64, 64, 4, 2 if backward else 1)
    return _tuned(WITHIN_BACKWARD if backward else WITHIN, own, key_dim, value_dim, dtype)


@dataclass(frozen=True)
class Cut:
    """How a call's time axis is cut."""

    chunk: int
    chunks: int  # of a head; packed, as many as there can be
    segments: int
    chunks_a_segment: int
    sequences: int = 1  # that a batch entry holds
    table: Tensor | None = None  # chunks 2, int32: first token, end of its sequence; where there is no chunk, no token
    offsets: Tensor | None = None  # sequences + 1, int32: first chunk

    def starts(self, k: Tensor, v: Tensor) -> tuple[int, ...]:
        """The shape of the states that segments meet; empty where each meets its sequence's initial one."""
        B, _, H, V = v.shape
        return (0,) if self.table is not None or self.segments == 1 else (B * H, self.segments, k.shape[-1], V)


def plan(batch: int, heads: int, T: int, key_dim: int, value_dim: int, dtype: torch.dtype) -> Cut:
    chunk = matrix_size(min(T, 16 if dtype == torch.float32 else 64))
    chunks = -(-T // chunk)
    programs = batch * heads * output_tile(key_dim, value_dim, dtype).blocks(key_dim, value_dim)
    segments = max(1, min(PROGRAMS // programs, chunks // 8))
    chunks_a_segment = -(-chunks // segments)
    return Cut(chunk, chunks, -(-chunks // chunks_a_segment), chunks_a_segment)

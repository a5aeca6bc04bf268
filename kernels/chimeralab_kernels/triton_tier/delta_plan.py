"""How the delta rule is cut into programs; docs/kernels.md has the measurements behind the numbers.

Time is cut into chunks and, where there are too few heads to fill the GPU, into segments of whole chunks that run side
by side. What a segment makes of the state it meets is a K × K matrix, so segments cost two more scans: one for these
matrices, one for each segment's own state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chimeralab import ops
from chimeralab_kernels.triton_tier.gla_plan import PROGRAMS, Cut
from chimeralab_kernels.triton_tier.launch import matrix_size

LEAST_SEGMENTS = 4
"""Fewer are not worth the two scans."""


def sizes_lack(key_dim: int, value_dim: int, dtype: torch.dtype, *, by_channel: bool, general: bool) -> str | None:
    """Why there is no kernel for heads of these sizes; or None."""
    if max(key_dim, value_dim) > 256:
        return "takes head sizes up to 256"
    if dtype == torch.float32:
        return None
    # No GPU has checked these.
    if general and value_dim > 128:
        return "takes up to 128 values a head with a and b in half precision"
    if by_channel and not general and key_dim > 128:
        return "takes up to 128 keys a head with a decay by channel in half precision"
    return None


def memory_lacks(architecture: str, key_dim: int, value_dim: int, dtype: torch.dtype) -> str | None:
    """Why a GPU's shared memory does not hold what a program has of a chunk; or None.

    In half precision it is up to 96 KiB for heads of 64 and 152 KiB for larger ones, in float32 64 KiB for heads of 128
    and 128 KiB for larger ones. An A100 (sm80) has 163 KiB, most others below Hopper 99.
    """
    most = 128 if dtype == torch.float32 else 64
    if architecture in (*ops.tiles.ROOMY, "sm80") or max(key_dim, value_dim) <= most:
        return None
    return f"needs more shared memory than this GPU has, with heads above {most} and more than one token"


def filled(key_dim: int, value_dim: int, dtype: torch.dtype, *, by_channel: bool, general: bool) -> tuple[int, int]:
    """The sizes up to which heads are filled with zeros. In half precision Triton 3.6 gets others than powers of two
    wrong now and then; docs/kernels.md has those that were checked."""
    if dtype == torch.float32:
        return key_dim, value_dim
    least_key, least_value = (16, 64) if general else (64, 16) if by_channel else (16, 16)
    return max(matrix_size(key_dim), least_key), max(matrix_size(value_dim), least_value)


@dataclass(frozen=True)
class Tile:
    """How many columns of the state one program of the scan holds, and its launch parameters."""

    block_v: int
    warps: int
    stages: int


def plan(batch: int, heads: int, T: int, key_dim: int, value_dim: int, dtype: torch.dtype) -> Cut:
    single, K = dtype == torch.float32, matrix_size(key_dim)
    chunk = 16 if single else 64
    chunks = -(-T // chunk)
    block_v = scan_tile(K, value_dim, dtype, rows=True, halves=False, general=False, output=True, adds=False).block_v
    segments = min(PROGRAMS // (batch * heads * -(-value_dim // block_v)), chunks // 8)
    if segments < LEAST_SEGMENTS or K > 128:  # the matrices of larger heads do not fit a processor
        segments = 1
    chunks_a_segment = -(-chunks // segments)
    return Cut(chunk, chunks, -(-chunks // chunks_a_segment), chunks_a_segment)


@dataclass(frozen=True)
class WithinTile:
    """How many channels and values a program treats at once of what chunks do by themselves; launch parameters."""

    block_k: int
    block_v: int
    warps: int
    stages: int = 1


def within_tile(dtype: torch.dtype, *, general: bool, flat: bool) -> WithinTile:
    """For a decay by channel, heads of any size. In half precision blocks of 32 channels read outside their memory."""
    if dtype == torch.float32:
        return WithinTile(32, 64, 4)
    return WithinTile(64, 64, 4, 2) if flat and not general else WithinTile(64, 64, 8)


@dataclass(frozen=True)
class GradientTile:
    """How many channels a program treats at once of the gradients without a decay by channel; launch parameters."""

    block_k: int
    warps: int
    stages: int


def gradient_tile(key_dim: int, value_dim: int, dtype: torch.dtype, *, decays: bool) -> GradientTile:
    if dtype == torch.float32 or key_dim < 64 or value_dim > 128:
        return GradientTile(min(matrix_size(key_dim), 32), 4, 1)
    return GradientTile(32 if decays else 64, 4, 2)


def system_parts(dtype: torch.dtype, *, decays: bool) -> int:
    """Of how many numbers each system's inverse is the sum. Without a decay nothing is forgotten, the state's errors
    least of all: one of bfloat16 is too little."""
    return 2 if dtype == torch.bfloat16 and not decays else 1


def halves_pairs(key_dim: int, dtype: torch.dtype) -> bool:
    """Whether gradients of scores go on as two numbers of bfloat16: with few channels their rounding weighs more."""
    return dtype == torch.bfloat16 and key_dim < 64


def scan_tile(
    key_dim: int,
    value_dim: int,
    dtype: torch.dtype,
    *,
    rows: bool,
    halves: bool,
    general: bool,
    output: bool,
    adds: bool,
) -> Tile:
    """For a scan whose operands carry row factors or not, one of them as two numbers or not, with a and b or not, that
    writes y or not, and whose state takes a second product or not."""
    single, K, V = dtype == torch.float32, matrix_size(key_dim), matrix_size(value_dim)
    if single or K > 128:
        return Tile(min(V, 32), 4, 2 if rows and not single else 1)
    if halves and V == 128 and K == 128:
        return Tile(128, 8, 2) if output or adds else Tile(64, 4, 3)
    if rows or V <= 64 or (general and output) or (V == 128 and not (output or adds)):
        return Tile(min(V, 64), 4, 2)
    return Tile(128, 8, 3 if output else 2)  # operands of their own fill the shared memory: more columns share them

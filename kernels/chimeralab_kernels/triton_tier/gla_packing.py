"""How a call's time axis is cut: into chunks and segments, packed sequences each into chunks of their own.

A packed sequence is one segment. Its chunks are found on the device: past their check nothing waits for the offsets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chimeralab_kernels.triton_tier.gla_plan import Cut, plan


def cut_time(k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Cut:  # k: B T G K; v: B T H V
    B, T, H, V = v.shape
    cut = plan(B, H, T, k.shape[-1], V, v.dtype)
    return cut if cu_seqlens is None else cut_sequences(v, cu_seqlens, cut.chunk)


def cut_sequences(v: Tensor, cu_seqlens: Tensor, C: int) -> Cut:  # v: 1 T …
    """Into chunks of C tokens, without waiting for the offsets."""
    T, bounds = v.shape[1], cu_seqlens.to(v.device, torch.int64)
    sequences = len(bounds) - 1
    offsets = F.pad(((bounds.diff() + C - 1) // C).cumsum(0), (1, 0))
    chunks = T // C + sequences
    n = torch.arange(chunks, device=v.device)
    sequence = torch.searchsorted(offsets[1:], n, right=True).clamp(max=sequences - 1)
    first = (bounds[sequence] + (n - offsets[sequence]) * C).clamp(max=T)
    table = torch.stack([first, bounds[sequence + 1]], 1)
    return Cut(C, chunks, sequences, chunks, sequences, table.int(), offsets.int())


def heads_first(state: Tensor | None, cut: Cut) -> Tensor | None:
    """N H K V, or B H K V, as the kernels read it: the states of packed sequences by head first."""
    if state is None:
        return None
    return state.contiguous() if cut.table is None else state.transpose(0, 1).contiguous()


def sequences_first(state: Tensor) -> Tensor:
    """B H sequences K V as the kernels write it to B H K V, or N H K V."""
    return state.transpose(1, 2).flatten(0, 1).contiguous()


def fake_outputs(k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state and the segments' starts, without their values."""
    B, _, H, V = v.shape
    cut = cut_time(k, v, cu_seqlens)
    return (
        v.new_empty(v.shape),
        v.new_empty((B * cut.sequences, H, k.shape[-1], V), dtype=torch.float32),
        v.new_empty(cut.starts(k, v), dtype=torch.float32),
    )

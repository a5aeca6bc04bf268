"""Gated linear attention on the GPU: which kernels a call takes, and how odd head sizes come to sizes that they have.

Kernels in half precision have head sizes of powers of two from 16 to 256, those for a decay by channel K from 64, and
in float32 any up to 256. A head size between is filled with zeros, which change nothing; a larger one, or one a little
above a power of two, is cut into parts. Parts of V are heads of their own; parts of K add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.packing import check_offsets
from chimeralab_kernels.triton_tier.channel_gla import channel_gla
from chimeralab_kernels.triton_tier.gla_step import gla_step
from chimeralab_kernels.triton_tier.launch import differentiated, fill, matrix_size
from chimeralab_kernels.triton_tier.scalar_gla import scalar_gla

LARGEST = 256


def gated_linear_attention(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    log_decay: Tensor | None = None,  # H | B T H | B T H K
    bonus: Tensor | None = None,  # H K
    scale: float | None = None,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    (B, T, H, V), K = v.shape, q.shape[-1]
    scale = K**-0.5 if scale is None else scale
    g = log_decay
    if g is not None and g.dim() == 1:
        g = g.expand(B, T, H)
    if cu_seqlens is not None:
        check_offsets(cu_seqlens, v)
    elif T == 1 and not differentiated(q, k, v, g, bonus, initial_state):
        return gla_step(q, k, v, g, bonus, initial_state, scale)
    if bonus is not None and g is None:
        g = v.new_zeros((), dtype=torch.float32)
    if bonus is not None and g.dim() != 4:
        g = g.unsqueeze(-1).expand(B, T, H, K)

    single = v.dtype == torch.float32
    least_key_dim = 64 if g is not None and g.dim() == 4 else 16
    outputs, states = [], []
    for columns, value_dim in parts(V, single):
        total, rows = None, []
        for channels, key_dim in parts(K, single, least_key_dim):
            state = None if initial_state is None else initial_state[:, :, channels, columns]
            y, state = _whole(
                fill(q[..., channels], key_dim),
                fill(k[..., channels], key_dim),
                fill(v[..., columns], value_dim),
                g if g is None or g.dim() == 3 else fill(g[..., channels], key_dim),
                None if bonus is None else fill(bonus[:, channels], key_dim).contiguous(),
                None if state is None else fill(state, value_dim, key_dim),
                cu_seqlens,
                scale,
            )
            y = y[..., : columns.stop - columns.start]
            total = y if total is None else total + y
            rows.append(state[:, :, : channels.stop - channels.start, : columns.stop - columns.start])
        outputs.append(total)
        states.append(_join(rows, 2))
    return _join(outputs, -1), _join(states, -1)


def parts(size: int, single: bool, least: int = 16) -> list[tuple[slice, int]]:
    """What part of a head goes to one call, and the head size of the kernels that it is filled up to."""
    found, start = [], 0
    while start < size:
        rest = size - start
        filled = max(least, min(matrix_size(rest), LARGEST))
        if single:
            filled = min(rest, filled)
        elif filled > 64 and filled - rest > filled // 4:
            filled //= 2  # more than a quarter would be zeros
        taken = min(rest, filled)
        found.append((slice(start, start + taken), filled))
        start += taken
    return found


def _whole(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    u: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    if g is not None and g.dim() == 4:
        y, final, _ = channel_gla(q, k, v, g, u, initial, cu_seqlens, scale)
    else:
        y, final, _ = scalar_gla(q, k, v, g, initial, cu_seqlens, scale)
    return y, final


def _join(pieces: list[Tensor], dim: int) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)

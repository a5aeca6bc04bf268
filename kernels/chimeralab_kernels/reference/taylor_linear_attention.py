"""S_t = S_{t-1} + φ(k_t) [v_t, 1]ᵀ, y_t = n_t / z_t with [n_t, z_t] = S_tᵀ φ(q_t), one token after another."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.precision import wide
from chimeralab_kernels.taylor import taylor_features


def taylor_linear_attention(
    q: Tensor,  # B T H F
    k: Tensor,  # B T H F
    v: Tensor,  # B T H V
    initial_state: Tensor | None = None,  # B H K V+1
) -> tuple[Tensor, Tensor]:
    (B, T, H, V), dtype = v.shape, wide(v)
    q, k = (taylor_features(x.to(dtype)) for x in (q, k))  # B T H K
    values = torch.cat([v.to(dtype), v.new_ones(B, T, H, 1, dtype=dtype)], -1)
    S = v.new_zeros(B, H, q.shape[-1], V + 1, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    outputs = [values[:, :0, :, :V]]
    for t in range(T):
        S = S + k[:, t].unsqueeze(-1) * values[:, t].unsqueeze(-2)
        read = torch.einsum("bhk,bhkv->bhv", q[:, t], S)
        outputs.append((read[..., :V] / read[..., V:]).unsqueeze(1))
    return torch.cat(outputs, 1).to(v.dtype), S

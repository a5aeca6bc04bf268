"""S_t = diag(exp g_t) S_{t-1} + k_t v_tᵀ, y_t = q_tᵀ S_t, one token after another."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import wide


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
    B, T, H, V = v.shape
    G, K = q.shape[2:]
    dtype, heads_a_group = wide(v), H // G
    if log_decay is None:
        log_decay = v.new_zeros(1, 1, 1, 1)
    elif log_decay.dim() == 1:
        log_decay = log_decay.view(1, 1, H, 1)
    elif log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    log_decay = log_decay.expand(B, T, H, K)
    scale = K**-0.5 if scale is None else scale

    def recurrence(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        q = (q.to(dtype) * scale).repeat_interleave(heads_a_group, 2)
        k, decay = k.to(dtype).repeat_interleave(heads_a_group, 2), g.to(dtype).exp()
        S = q.new_zeros(len(v), H, K, V) if state is None else state.to(dtype)
        outputs = [v.to(dtype)[:, :0]]
        for t in range(v.shape[1]):
            new = k[:, t].unsqueeze(-1) * v[:, t].to(dtype).unsqueeze(-2)  # B H K V
            before, S = S, decay[:, t].unsqueeze(-1) * S + new
            read = S if bonus is None else before + bonus.to(dtype).unsqueeze(-1) * new
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], read).unsqueeze(1))
        return torch.cat(outputs, 1).to(v.dtype), S

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, q, k, v, log_decay)
    return recurrence(q, k, v, log_decay, initial_state)

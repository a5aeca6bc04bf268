"""RWKV-4's recurrence, one token after another, its sums divided by the largest exponential in them."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import wide


def wkv4(
    k: Tensor,  # B T D
    v: Tensor,  # B T D
    decay: Tensor,  # D
    bonus: Tensor,  # D
    initial_state: Tensor | None = None,  # B 3 D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    dtype = wide(v)
    w, u = decay.to(dtype), bonus.to(dtype)

    def recurrence(k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        keys, values = k.to(dtype), v.to(dtype)
        if state is None:
            state = ops.wkv4_state(len(v), v.shape[2], device=v.device, dtype=dtype)
        num, den, top = state.to(dtype).unbind(1)
        top = top.detach()
        outputs = [values[:, :0]]
        for t in range(k.shape[1]):
            k_t, v_t = keys[:, t], values[:, t]
            largest = torch.maximum(top, k_t + u).detach()
            past, present = (top - largest).exp(), (k_t + u - largest).exp()
            outputs.append(((past * num + present * v_t) / (past * den + present)).unsqueeze(1))
            largest = torch.maximum(top + w, k_t).detach()
            past, present = (top + w - largest).exp(), (k_t - largest).exp()
            num, den, top = past * num + present * v_t, past * den + present, largest
        return torch.cat(outputs, 1).to(v.dtype), torch.stack([num, den, top], 1)

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, k, v)
    return recurrence(k, v, initial_state)

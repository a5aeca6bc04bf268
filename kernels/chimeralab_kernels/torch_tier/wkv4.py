"""RWKV-4's sums by one scan with decays of at most 1, once the largest exponent up to each token is known.

With m_t = max(m_{t-1} + w, k_t), the numerator and the denominator over e^{m_t} follow

    h_t = e^{m_{t-1} + w − m_t} h_{t-1} + e^{k_t − m_t} [v_t, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import wide
from chimeralab_kernels.torch_tier.linear_scan import linear_scan


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
        if state is None:
            state = ops.wkv4_state(len(v), v.shape[2], device=v.device, dtype=dtype)
        state = state.to(dtype)
        sums, first = state[:, :2], state[:, 2:].detach()
        if v.shape[1] == 0:
            return v, torch.cat([sums, first], 1)
        output, k, v = v.dtype, k.to(dtype), v.to(dtype)
        top = _largest(k.detach(), w.detach(), first)
        before = torch.cat([first, top[:, :-1]], 1)
        new = (k - top).exp()
        h = linear_scan(torch.stack([new * v, new], 2), (before + w - top).exp().unsqueeze(2), sums)  # B T 2 D
        num, den = torch.cat([sums.unsqueeze(1), h[:, :-1]], 1).unbind(2)
        own = k + u
        largest = torch.maximum(before, own.detach())
        past, present = (before - largest).exp(), (own - largest).exp()
        y = (past * num + present * v) / (past * den + present)
        return y.to(output), torch.cat([h[:, -1], top[:, -1:]], 1)

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, k, v)
    return recurrence(k, v, initial_state)


def _largest(k: Tensor, w: Tensor, first: Tensor) -> Tensor:
    """m_t = max(m_{t-1} + w, k_t) from m_{-1} = `first`, in log T rounds of twice the reach."""
    top = torch.cat([torch.maximum(k[:, :1], first + w), k[:, 1:]], 1)
    reach = 1
    while reach < k.shape[1]:
        top = torch.cat([top[:, :reach], torch.maximum(top[:, reach:], top[:, :-reach] + reach * w)], 1)
        reach *= 2
    return top

"""The delta rule as it is written in `chimeralab.ops.delta_rule`, one token after another."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab_kernels.checks import check_pair
from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import full_precision, wide


def delta_rule(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    beta: Tensor | None = None,  # B T H
    log_decay: Tensor | None = None,  # B T H | B T H K
    a: Tensor | None = None,  # B T H K
    b: Tensor | None = None,  # B T H K
    scale: float | None = None,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    check_pair("delta_rule", "a", a, "b", b)
    B, T, H, V = v.shape
    G, K = q.shape[2:]
    dtype, heads_a_group = wide(v), H // G
    beta = v.new_ones(1, 1, 1) if beta is None else beta
    log_decay = v.new_zeros(1, 1, 1) if log_decay is None else log_decay
    log_decay = log_decay if log_decay.dim() == 4 else log_decay.unsqueeze(-1)
    scale = K**-0.5 if scale is None else scale

    def recurrence(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        g: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        q, k = (x.repeat_interleave(heads_a_group, 2) for x in (q.to(dtype) * scale, k.to(dtype)))
        values, beta, decay = v.to(dtype), beta.to(dtype), g.to(dtype).exp()
        S = q.new_zeros(len(v), H, K, V) if state is None else state.to(dtype)
        outputs = [values[:, :0]]
        for t in range(v.shape[1]):
            faded = decay[:, t].unsqueeze(-1) * S  # B H K V
            if a is None or b is None:
                held = torch.einsum("bhk,bhkv->bhv", k[:, t], faded)
                S = faded + _outer(k[:, t], beta[:, t].unsqueeze(-1) * (values[:, t] - held))
            else:
                held = torch.einsum("bhk,bhkv->bhv", a[:, t].to(dtype), S)
                written = _outer(k[:, t], beta[:, t].unsqueeze(-1) * values[:, t])
                S = faded + _outer(b[:, t].to(dtype), held) + written
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], S).unsqueeze(1))
        return torch.cat(outputs, 1).to(v.dtype), S

    with full_precision(v):
        inputs = (q, k, v, beta.expand(B, T, H), log_decay.expand(B, T, H, K), a, b)
        if cu_seqlens is not None:
            return each_sequence(recurrence, cu_seqlens, initial_state, *inputs)
        return recurrence(*inputs, initial_state)


def _outer(x: Tensor, y: Tensor) -> Tensor:
    return x.unsqueeze(-1) * y.unsqueeze(-2)

"""The selective scan in chunks of time: only a chunk's states, B C N D, are held at once.

    a_t = exp(Δ_t A),   h_t = a_t ⊙ h_{t-1} + B_t (Δ_t u_t)ᵀ,   y_t = C_tᵀ h_t

Forward keeps the state before each chunk; backward goes through the chunks from the last, computes their states
again and scans the other way: g_t = C_t dy_tᵀ + a_{t+1} ⊙ g_{t+1} is what reaches h_t.

States lie as N D in memory: D is wide and Δ, u run along it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import full_precision, wide
from chimeralab_kernels.torch_tier.linear_scan import library, scan_

CHUNK_STATES = 1 << 19
"""State elements of a chunk: 2 MiB in float32, about what a core's cache holds; larger ones go slower."""


def selective_scan(
    u: Tensor,  # B T D
    delta: Tensor,  # B T D
    A: Tensor,  # D N
    B: Tensor,  # B T N
    C: Tensor,  # B T N
    skip: Tensor | None = None,  # D
    z: Tensor | None = None,  # B T D
    initial_state: Tensor | None = None,  # B D N
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    dtype = wide(u)
    by_state = A.to(dtype).T  # N D

    def recurrence(
        u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs, delta, B, C = (t.to(dtype) for t in (u, delta, B, C))
        state = inputs.new_zeros(len(u), *A.shape) if state is None else state.to(dtype)
        if u.shape[1] == 0:
            return u, state
        with full_precision(u):
            y, last = SelectiveScan.apply(inputs * delta, delta, by_state, B, C, state.mT)
        if skip is not None:
            y = y + skip.to(dtype) * inputs
        if z is not None:
            y = y * F.silu(z.to(dtype))
        return y.to(u.dtype), last.mT

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, u, delta, B, C, z)
    return recurrence(u, delta, B, C, z, initial_state)


def _chunk_length(w: Tensor, A: Tensor) -> int:
    T = w.shape[1]
    return min(T, max(8, CHUNK_STATES // (w.shape[0] * A.numel())))


def _buffers(count: int, w: Tensor, A: Tensor) -> list[Tensor]:
    """B C N D each, for all chunks: a fresh one for each would cost more in page faults than in arithmetic."""
    return [w.new_empty(len(w), _chunk_length(w, A), *A.shape) for _ in range(count)]


def _forward(
    w: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """w = Δ u: B T D. Gives y: B T D; the state after the last token: B N D; before each chunk: B n N D."""
    T, state, before, y = w.shape[1], initial, [], torch.empty_like(w)
    decays, states = _buffers(2, w, A)
    length = decays.shape[1]
    for start in range(0, T, length):
        t = slice(start, min(start + length, T))
        before.append(state)
        _, h = _states(w[:, t], delta[:, t], A, B[:, t], state, decays, states)
        y[:, t] = (C[:, t].unsqueeze(2) @ h).squeeze(2)
        state = h[:, -1].clone()
    return y, state, torch.stack(before, 1)


def _states(
    w: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor, decays: Tensor, states: Tensor
) -> tuple[Tensor, Tensor]:
    """Decays and states of one chunk, B C N D, written into the buffers."""
    a, h = decays[:, : w.shape[1]], states[:, : w.shape[1]]
    torch.mul(delta.unsqueeze(2), A, out=a).exp_()
    torch.mul(w.unsqueeze(2), B.unsqueeze(3), out=h)
    h[:, 0].addcmul_(a[:, 0], state)
    return a, scan_(h, a)


def _backward(
    d_y: Tensor, d_last: Tensor, w: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor
) -> tuple[Tensor, ...]:
    T = w.shape[1]
    decays, states, gradients = _buffers(3, w, A)
    length = decays.shape[1]
    d_w, d_delta, d_A = torch.empty_like(w), torch.empty_like(delta), torch.zeros_like(A)
    d_B, d_C = torch.empty_like(B), torch.empty_like(C)
    carried = d_last  # a_{t+1} ⊙ g_{t+1} for the last token of the chunk at hand
    for n in reversed(range(before.shape[1])):
        t = slice(n * length, min(n * length + length, T))
        a, h = _states(w[:, t], delta[:, t], A, B[:, t], before[:, n], decays, states)
        d_C[:, t] = (h @ d_y[:, t].unsqueeze(3)).squeeze(3)
        g = torch.mul(C[:, t].unsqueeze(3), d_y[:, t].unsqueeze(2), out=gradients[:, : a.shape[1]])
        g[:, -1] += carried
        scan_(g, a, adjoint=True)
        d_w[:, t] = (B[:, t].unsqueeze(2) @ g).squeeze(2)
        d_B[:, t] = (g @ w[:, t].unsqueeze(3)).squeeze(3)
        # ∂/∂(Δ_t A) = g_t ⊙ a_t ⊙ h_{t-1}
        g *= a
        carried = g[:, 0].clone()
        g[:, 1:] *= h[:, :-1]
        g[:, 0] *= before[:, n]
        d_delta[:, t] = torch.mul(g, A, out=a).sum(2)
        g *= delta[:, t].unsqueeze(2)
        d_A += g.sum((0, 1))
    return d_w, d_delta, d_A, d_B, d_C, carried


library.define(
    "selective_scan(Tensor w, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor initial) -> (Tensor, Tensor, Tensor)"
)
library.define(
    "selective_scan_backward(Tensor d_y, Tensor d_last, Tensor w, Tensor delta, Tensor A, Tensor B, Tensor C, "
    "Tensor before) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
library.impl("selective_scan", _forward, "CompositeExplicitAutograd")
library.impl("selective_scan_backward", _backward, "CompositeExplicitAutograd")


@torch.library.register_fake("chimeralab::selective_scan")
def _(w: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    chunks = -(-w.shape[1] // _chunk_length(w, A))
    return torch.empty_like(w), w.new_empty(len(w), *A.shape), w.new_empty(len(w), chunks, *A.shape)


@torch.library.register_fake("chimeralab::selective_scan_backward")
def _(
    d_y: Tensor, d_last: Tensor, w: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor
) -> tuple[Tensor, ...]:
    return (*(torch.empty_like(x) for x in (w, delta, A, B, C)), torch.empty_like(d_last))


@register_flop_formula(torch.ops.chimeralab.selective_scan)
def _flops(w: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    return 4 * w[0] * w[1] * A[0] * A[1]


@register_flop_formula(torch.ops.chimeralab.selective_scan_backward)
def _backward_flops(d_y: Any, d_last: Any, w: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    return 8 * w[0] * w[1] * A[0] * A[1]


class SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        inputs = tuple(x.contiguous() for x in inputs)
        y, last, before = torch.ops.chimeralab.selective_scan(*inputs)
        ctx.save_for_backward(*inputs[:-1], before)
        return y, last

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
        d_y, d_last = d_y.contiguous(), d_last.contiguous()
        return torch.ops.chimeralab.selective_scan_backward(d_y, d_last, *ctx.saved_tensors)

"""h_t = a_t ⊙ h_{t-1} + x_t, in log T rounds and 2T multiply-adds: pairs are merged, scanned, and parted again.

An operator of its own, so that its FLOPs are counted and the backward pass is the adjoint scan. It is
defined through `torch.library.Library`: `custom_op` would import dynamo, a second at every start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

library = torch.library.Library("chimeralab", "FRAGMENT")


SHORT = 8
"""Tokens that go one by one: as few calls as by pairs, and a third of the memory traffic."""


def scan_(x: Tensor, a: Tensor, *, adjoint: bool = False) -> Tensor:
    """h_t = a_t ⊙ h_{t-1} + x_t from h = 0 along dimension 1; adjoint: h_t = a_{t+1} ⊙ h_{t+1} + x_t.

    `a` broadcasts to `x`; its first element is never used. Writes h over x.
    """
    T = x.shape[1]
    if T <= SHORT:
        for t in range(T - 2, -1, -1) if adjoint else range(1, T):
            x[:, t].addcmul_(a[:, t + adjoint], x[:, t + 1 if adjoint else t - 1])
        return x
    odd = T % 2
    if adjoint:  # pairs (t, t + 1) from the end; t takes its neighbour in
        kept, merged = slice(odd, T - 1, 2), slice(odd + 1, T, 2)
        between, nearest = slice(1 - odd, T - 2, 2), slice(2 - odd, T - 1, 2)
        decay = a[:, kept].clone()
        decay[:, 1:] *= a[:, odd + 1 : T - 2 : 2]
    else:  # pairs (t - 1, t) from the start
        kept, merged = slice(1, T, 2), slice(0, T - 1, 2)
        between, nearest = slice(2, T, 2), slice(1, T - 1, 2)
        decay = a[:, kept] * a[:, merged]
    x[:, kept].addcmul_(a[:, merged if adjoint else kept], x[:, merged])
    scan_(x[:, kept], decay, adjoint=adjoint)
    x[:, between].addcmul_(a[:, nearest if adjoint else between], x[:, nearest])
    return x


def _linear_scan(x: Tensor, a: Tensor, initial: Tensor | None, adjoint: bool) -> Tensor:
    h = x.clone(memory_format=torch.contiguous_format)
    if initial is not None:
        h[:, 0].addcmul_(a[:, 0], initial)
    return scan_(h, a, adjoint=adjoint)


library.define("linear_scan(Tensor x, Tensor a, Tensor? initial, bool adjoint) -> Tensor")
library.impl("linear_scan", _linear_scan, "CompositeExplicitAutograd")


@torch.library.register_fake("chimeralab::linear_scan")
def _(x: Tensor, a: Tensor, initial: Tensor | None, adjoint: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@register_flop_formula(torch.ops.chimeralab.linear_scan, get_raw=True)
def _flops(x: Tensor, *_: Any, **__: Any) -> int:
    return (8 if x.is_complex() else 2) * x.numel()


class LinearScan(torch.autograd.Function):
    """x: B T D; a: 1 or B, T, D; initial: B D; all of one dtype. Gives h: B T D."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, initial: Tensor) -> Tensor:
        h = torch.ops.chimeralab.linear_scan(x, a, initial, False)
        ctx.save_for_backward(a, initial, h)
        return h

    @staticmethod
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, initial, h = ctx.saved_tensors
        d_x = torch.ops.chimeralab.linear_scan(d_h, a.conj().resolve_conj(), None, True)
        before = torch.cat([initial.unsqueeze(1), h[:, :-1]], 1)
        d_a = (d_x * before.conj()).sum_to_size(a.shape)
        return d_x, d_a, d_x[:, 0] * a[:, 0].conj()


def linear_scan(x: Tensor, a: Tensor, initial: Tensor) -> Tensor:
    """h_t = a_t ⊙ h_{t-1} + x_t with h_{-1} = `initial`; see `LinearScan`."""
    return LinearScan.apply(x, a, initial)

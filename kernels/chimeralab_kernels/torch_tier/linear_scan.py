"""h_t = a_t ⊙ h_{t-1} + x_t, in log T rounds and 2T multiply-adds: pairs are merged, scanned, and parted again.

An operator of its own, so that its FLOPs are counted and the backward pass is one scan the other way round. It is
defined through `torch.library.Library`: `custom_op` would import dynamo, a second at every start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

library = torch.library.Library("chimeralab", "FRAGMENT")


def scan_(x: Tensor, a: Tensor, *, reverse: bool = False) -> Tensor:
    """h_t = a_t ⊙ h_{t-1} + x_t from h = 0 along dimension 1; in reverse h_t = a_t ⊙ h_{t+1} + x_t.

    `a` broadcasts to `x`, and its first element (in reverse its last) is never used. Writes h over x.
    """
    T = x.shape[1]
    if T == 1:
        return x
    second, first = (
        (slice(T % 2, T - 1, 2), slice(T % 2 + 1, T, 2)) if reverse else (slice(1, T, 2), slice(0, T - 1, 2))
    )
    later, earlier = x[:, second], x[:, first]
    later.addcmul_(a[:, second], earlier)
    scan_(later, a[:, second] * a[:, first], reverse=reverse)
    if T > 2:  # what stands between the pairs goes on from the pair before it
        between, before = (
            (slice((T - 1) % 2, T - 2, 2), slice((T - 1) % 2 + 1, T - 1, 2))
            if reverse
            else (slice(2, T, 2), slice(1, T - 1, 2))
        )
        x[:, between].addcmul_(a[:, between], x[:, before])
    return x


def _linear_scan(x: Tensor, a: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    h = x.clone(memory_format=torch.contiguous_format)
    if initial is not None:
        h[:, 0].addcmul_(a[:, 0], initial)
    return scan_(h, a, reverse=reverse)


library.define("linear_scan(Tensor x, Tensor a, Tensor? initial, bool reverse) -> Tensor")
library.impl("linear_scan", _linear_scan, "CompositeExplicitAutograd")


@torch.library.register_fake("chimeralab::linear_scan")
def _(x: Tensor, a: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
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
        # What reaches h_t comes from its own output and, through a_{t+1}, from h_{t+1}.
        d_x = torch.ops.chimeralab.linear_scan(d_h, a.roll(-1, 1).conj().resolve_conj(), None, True)
        before = torch.cat([initial.unsqueeze(1), h[:, :-1]], 1)
        d_a = (d_x * before.conj()).sum_to_size(a.shape)
        return d_x, d_a, d_x[:, 0] * a[:, 0].conj()


def linear_scan(x: Tensor, a: Tensor, initial: Tensor) -> Tensor:
    """h_t = a_t ⊙ h_{t-1} + x_t with h_{-1} = `initial`; see `LinearScan`."""
    return LinearScan.apply(x, a, initial)

"""Mamba's scan: h_t = exp(Δ_t A) ⊙ h_{t−1} + (Δ_t u_t) B_tᵀ,  y_t = (h_t C_t + skip ⊙ u_t) ⊙ silu(z_t).

Between the passes the inputs are kept, and the state before each 256 tokens. The backward pass takes so many tokens at
a time: forwards once more, to leave the state before every fourth token, then backwards. Blocks of channels write their
shares of dB and dC apart, so that their sums come out the same in each run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab_kernels.packing import check_offsets
from chimeralab_kernels.triton_tier import selective_kernels
from chimeralab_kernels.triton_tier.first_call import differentiate, operator
from chimeralab_kernels.triton_tier.launch import differentiated, power_of_two, unit_stride
from chimeralab_kernels.triton_tier.time_rows import Walk, walk

SPAN = 256
"""Tokens of a segment that one launch of the backward pass takes: what it needs memory for."""


def selective_scan(
    u: Tensor,  # B T D
    delta: Tensor,  # B T D
    A: Tensor,  # D N
    B: Tensor,  # B T N
    C: Tensor,  # B T N
    skip: Tensor | None = None,  # D
    z: Tensor | None = None,  # B T D
    initial_state: Tensor | None = None,  # B D N; packed, one a sequence
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if cu_seqlens is not None:
        check_offsets(cu_seqlens, u)
    inputs = (u, delta, A, B, C, skip, z, initial_state)
    return fused_selective_scan(*inputs, cu_seqlens, differentiated(*inputs))[:2]


class _Scan:
    """One call's tensors, as the kernels read them, and how it is cut."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        skip: Tensor | None,
        z: Tensor | None,
        cu_seqlens: Tensor | None,
    ) -> None:
        self.u, self.delta, self.B, self.C = (unit_stride(x) for x in (u, delta, B, C))
        self.z = None if z is None else unit_stride(z)
        self.A, self.skip = A.contiguous(), None if skip is None else skip.contiguous()
        (self.batch, self.T, self.D), self.N = u.shape, A.shape[1]
        self.cut: Walk = walk(u, self.D, cu_seqlens, block=16, warps=8, ahead=4)
        self.span = min(SPAN, self.cut.length)
        self.spans = -(-self.cut.length // self.span)
        self.grid = (self.cut.parts * self.cut.blocks,)
        self.lengths = (self.cut.table, self.T, self.cut.segments, self.cut.length)
        self.strides = [s for x in (self.u, self.delta, self.B, self.C) for s in x.stride()[:2]]
        self.strides += (0, 0) if self.z is None else self.z.stride()[:2]
        self.sizes = {"D": self.D, "N": self.N, "BN": power_of_two(self.N), "BD": self.cut.block, "num_warps": 1}
        self.sizes["PACKED"] = self.cut.packed
        self.modes = {**self.sizes, "U": self.cut.ahead, "SKIPS": skip is not None, "GATED": z is not None}

    def state(self, count: int) -> Tensor:
        return self.u.new_empty((count, self.D, self.N), dtype=torch.float32)

    def forward(self, start: Tensor | None, y: Tensor, marks: Tensor | None) -> Tensor:
        """Into y and, where it is given, `marks`. Returns each sequence's last state."""
        start = self._met(start) if self.cut.joined else _wide(start)
        return self.cut.last(self._forward(start, y=y, marks=marks))

    def marks(self) -> Tensor:
        return self.state(self.cut.parts * self.spans)

    def _forward(
        self,
        start: Tensor | None,
        *,
        y: Tensor | None = None,
        marks: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        ends = self.state(self.cut.parts)
        selective_kernels.forward[self.grid](
            self.u, self.delta, self.A, self.B, self.C, self.skip, self.z, start, y, ends, steps, marks,
            *self.lengths, self.span, *self.strides, **self.modes,
            STARTS=start is not None, OUTPUT=y is not None, STEPS=steps is not None, MARKS=marks is not None,
        )  # fmt: skip
        return ends

    def _met(self, start: Tensor | None) -> Tensor:
        steps = self.u.new_empty((self.cut.parts, self.D), dtype=torch.float32)
        ends = self._forward(None, steps=steps)
        return self._join(ends, steps, start)

    def _join(self, ends: Tensor, steps: Tensor, start: Tensor | None, *, backwards: bool = False) -> Tensor:
        met, start = torch.empty_like(ends), _wide(start)
        selective_kernels.join[(self.cut.sequences, self.cut.blocks)](
            ends, steps, self.A, start, met, self.cut.firsts, self.cut.segments,
            **self.sizes, BACKWARDS=backwards, STARTS=start is not None,
        )  # fmt: skip
        return met

    def backward(self, dy: Tensor, d_final: Tensor | None, marks: Tensor) -> tuple[Tensor, ...]:
        """du, dΔ, dA, dB, dC, d skip, dz and the initial state's gradient, in float32 where they are sums."""
        new, (blocks, segments, span, N) = self.u.new_empty, (self.cut.blocks, self.cut.segments, self.span, self.N)
        carried = _wide(d_final)
        if self.cut.joined:
            carried = self._join(*self._carry_back(dy), carried, backwards=True)
        carried = torch.zeros_like(self.state(self.cut.parts)) if carried is None else carried.clone()
        du, d_delta = new(self.u.shape), new(self.delta.shape, dtype=self.delta.dtype)
        dz = new(0) if self.z is None else new(self.z.shape, dtype=self.z.dtype)
        dA, d_skip = torch.zeros_like(carried), carried.new_zeros(self.cut.parts, self.D)
        shares = carried.new_empty(self.batch, blocks, 2, segments, span, N)
        sums = carried.new_empty(self.batch, 2, segments, self.spans * span, N)
        kept = carried.new_empty(*self.grid, span // self.cut.ahead, self.cut.block, self.sizes["BN"])
        for phase in reversed(range(self.spans)):
            selective_kernels.backward[self.grid](
                dy, self.u, self.delta, self.A, self.B, self.C, self.skip, self.z, marks, kept, carried,
                du, d_delta, dA, shares, d_skip, dz, *self.lengths, span, phase,
                *dy.stride()[:2], *self.strides, **self.modes,
            )  # fmt: skip
            torch.sum(shares, 1, out=sums[:, :, :, phase * span : (phase + 1) * span])
        dB, dC = self._by_token(sums).unbind(1)
        return du, d_delta, dA.sum(0), dB, dC, d_skip.sum(0), dz, self.cut.first(carried)

    def _by_token(self, sums: Tensor) -> Tensor:
        """What was summed by segment, B 2 segments tokens N, along T."""
        if self.cut.table is None:
            return sums[:, :, :, : self.cut.length].flatten(2, 3)[:, :, : self.T]
        begin, stop = self.cut.table[:, :2].T.contiguous()
        token = torch.arange(self.T, device=sums.device)
        segment = torch.searchsorted(stop, token, right=True)
        return sums.flatten(2, 3)[:, :, segment * sums.shape[3] + token - begin[segment]]

    def _carry_back(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        """R at each segment's start, from zero at its end, and the sum of Δ over it."""
        carried = self.state(self.cut.parts)
        steps = carried.new_empty(self.cut.parts, self.D)
        selective_kernels.carry_back[self.grid](
            dy, self.delta, self.A, self.C, self.z, carried, steps, *self.lengths,
            *dy.stride()[:2], *self.strides[2:4], *self.strides[6:],
            **self.sizes, U=self.cut.ahead, GATED=self.z is not None,
        )  # fmt: skip
        return carried, steps


def _wide(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32).contiguous()


@operator("chimeralab::fused_selective_scan")
def fused_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor | None,
    z: Tensor | None,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    marked: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state before each span of tokens (empty where it is not asked for)."""
    scan = _Scan(u, delta, A, B, C, skip, z, cu_seqlens)
    y, marks = u.new_empty(u.shape), scan.marks() if marked else None
    final = scan.forward(start, y, marks)
    return y, final, final.new_empty(0) if marks is None else marks


@operator("chimeralab::fused_selective_scan_backward")
def fused_selective_scan_backward(
    dy: Tensor | None,
    d_final: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor | None,
    z: Tensor | None,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients in the order of the inputs; empty where there is no such input."""
    scan = _Scan(u, delta, A, B, C, skip, z, cu_seqlens)
    dy = torch.zeros_like(u) if dy is None else unit_stride(dy)
    du, d_delta, dA, dB, dC, d_skip, dz, d_start = scan.backward(dy, d_final, marks)
    return (
        du,
        d_delta,
        dA.to(A.dtype),
        *(d.to(x.dtype, copy=True, memory_format=torch.contiguous_format) for d, x in ((dB, B), (dC, C))),
        u.new_empty(0) if skip is None else d_skip.to(skip.dtype),
        dz,
        u.new_empty(0) if start is None else d_start.to(start.dtype).contiguous(),
    )


@fused_selective_scan.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor | None,
    z: Tensor | None,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    marked: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    sequences = len(u) if cu_seqlens is None else len(cu_seqlens) - 1
    final = u.new_empty((sequences, *A.shape), dtype=torch.float32)
    marks = _Scan(u, delta, A, B, C, skip, z, cu_seqlens).marks() if marked else final.new_empty(0)
    return u.new_empty(u.shape), final, marks


@fused_selective_scan_backward.register_fake
def _(
    dy: Tensor | None,
    d_final: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor | None,
    z: Tensor | None,
    start: Tensor | None,
    cu_seqlens: Tensor | None,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    optional = (u.new_empty(0) if x is None else x.new_empty(x.shape) for x in (skip, z, start))
    given = (x.new_empty(x.shape) for x in (u, delta, A, B, C))
    return (*given, *optional)  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:-1], output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_final: Tensor | None, _: Any) -> tuple:
    *inputs, cu_seqlens, marks = ctx.saved_tensors
    grads = fused_selective_scan_backward(dy, d_final, *inputs, cu_seqlens, marks)
    return *(None if x is None else grad for x, grad in zip(inputs, grads, strict=True)), None, None


differentiate(fused_selective_scan, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.fused_selective_scan)
def _flops(u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    return 4 * u[0] * u[1] * A[0] * A[1]


@register_flop_formula(torch.ops.chimeralab.fused_selective_scan_backward)
def _backward_flops(dy: Any, d_final: Any, u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    return 2 * _flops(u, delta, A)

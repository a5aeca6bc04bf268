"""RMS norm, plain, gated or of a sum, one pass over its rows in each direction.

    h = x · silu(gate), or x + other        r = 1 / √(mean h² + ε)        y = h · r · w
    dh = r (w · dy − ĥ mean(w · dy · ĥ)),  ĥ = h · r                      dw = Σ dy · ĥ over rows

A sum is an output too: h is what it is rounded to, and to dh comes what arrives through it. The backward pass computes
r again: between the passes nothing is kept but the inputs, or the sum. Each program adds up dw over the
rows that it goes through, so that the sums are few and come out the same in each run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator
from chimeralab_kernels.triton_tier.launch import power_of_two, processors, rows_of


@jit
def _forward(
    x, gate, other, weight, y, total, x_r, gate_r, other_r, rows, eps,
    D: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr, GATED: tl.constexpr, ADDED: tl.constexpr,
    WEIGHTED: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BD)[None, :]
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    here = (row < rows) & (column < D)
    h = tl.load(x + row * x_r + column, here, 0.0).to(tl.float32)
    if GATED:
        g = tl.load(gate + row * gate_r + column, here, 0.0).to(tl.float32)
        h *= g * tl.sigmoid(g)
    if ADDED:
        h += tl.load(other + row * other_r + column, here, 0.0).to(tl.float32)
        rounded = h.to(total.dtype.element_ty)
        tl.store(total + row * D + column, rounded, here)
        h = rounded.to(tl.float32)
    h *= tl.rsqrt(tl.sum(h * h, 1) / D + eps)[:, None]
    if WEIGHTED:
        h *= tl.load(weight + column, column < D, 0.0).to(tl.float32)
    tl.store(y + row * D + column, h, here)


@jit
def _backward(
    dy, d_total, x, gate, weight, dx, d_gate, d_weight, dy_r, total_r, x_r, gate_r, rows, eps, blocks,
    D: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr, GATED: tl.constexpr,
    ADDED: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BD)[None, :]
    if WEIGHTED:
        w = tl.load(weight + column, column < D, 0.0)
    sums = tl.zeros((BD,), tl.float32)
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0), num_stages=STAGES):
        row = (block * BR + tl.arange(0, BR)[:, None]).to(tl.int64)
        here = (row < rows) & (column < D)
        value = tl.load(x + row * x_r + column, here, 0.0).to(tl.float32)
        slope = tl.load(dy + row * dy_r + column, here, 0.0).to(tl.float32)
        h = value
        if GATED:
            g = tl.load(gate + row * gate_r + column, here, 0.0).to(tl.float32)
            open = tl.sigmoid(g)
            silu = g * open
            h = value * silu
        r = tl.rsqrt(tl.sum(h * h, 1) / D + eps)[:, None]
        h *= r
        if WEIGHTED:
            sums += tl.sum(slope * h, 0)
            slope *= w.to(tl.float32)
        dh = r * (slope - h * (tl.sum(slope * h, 1) / D)[:, None])
        if GATED:
            tl.store(d_gate + row * D + column, dh * value * (open + silu * (1 - open)), here)
            dh *= silu
        if ADDED:
            dh += tl.load(d_total + row * total_r + column, here, 0.0).to(tl.float32)
        tl.store(dx + row * D + column, dh, here)
    if WEIGHTED:
        place = tl.arange(0, BD)
        tl.store(d_weight + tl.program_id(0) * D + place, sums, place < D)


@jit
def _add_up(parts, total, programs, D: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr):
    """dw in its own dtype from the programs' sums, in one order: a launch where a sum and a cast would be two."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    found = tl.zeros((PARTS, COLUMNS), tl.float32)
    for first in range(0, programs, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]
        found += tl.load(parts + part * D + column, (part < programs) & (column < D), 0.0)
    place = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    tl.store(total + place, tl.sum(found, 0), place < D)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float = 1e-6, gate: Tensor | None = None) -> Tensor:
    return fused_rms_norm(x, weight, gate, None, eps)[0]


def add_rms_norm(x: Tensor, other: Tensor, weight: Tensor | None, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    return fused_rms_norm(x, weight, None, other, eps)


@operator("chimeralab::fused_rms_norm")
def fused_rms_norm(
    x: Tensor, weight: Tensor | None, gate: Tensor | None, other: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """y, and x + other, which is empty where there is no other."""
    y, total = _outputs(x, other)
    flat, gates, others = rows_of(x), _rows_of(gate), _rows_of(other)
    block, warps = _block(D := x.shape[-1])
    _forward[(-(-len(flat) // block),)](
        flat, gates, others, None if weight is None else weight.contiguous(), y, total,
        flat.stride(0), _stride(gates), _stride(others), len(flat), eps,
        D=D, BD=power_of_two(D), BR=block, GATED=gate is not None, ADDED=other is not None,
        WEIGHTED=weight is not None, num_warps=warps,
    )  # fmt: skip
    return y, total


@operator("chimeralab::fused_rms_norm_backward")
def fused_rms_norm_backward(
    dy: Tensor, d_total: Tensor | None, x: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dw and d gate; empty where there is no such input. Of a sum, x is the sum, and so is dx."""
    dx, d_weight, d_gate = _gradients(x, weight, gate)
    flat, slopes, gates, totals = rows_of(x), rows_of(dy), _rows_of(gate), _rows_of(d_total)
    block, warps = _block(D := x.shape[-1], gradients=True)
    blocks = -(-len(flat) // block)
    read = 2 + (gate is not None) + (d_total is not None)
    # As many as a processor's registers hold at once: a second wave would start when the first has ended.
    programs = min(blocks, max(1, (16 if gate is None else 12) // warps) * processors(x))
    ahead = 2 * read * block * power_of_two(D) * x.element_size()  # bytes that two stages load
    sums = x.new_empty((programs, D) if weight is not None else 0, dtype=torch.float32)
    _backward[(programs,)](
        slopes, totals, flat, gates, None if weight is None else weight.contiguous(), dx, d_gate, sums,
        slopes.stride(0), _stride(totals), flat.stride(0), _stride(gates), len(flat), eps, blocks,
        D=D, BD=power_of_two(D), BR=block, STAGES=3 if ahead <= 2**15 else 1, GATED=gate is not None,
        ADDED=d_total is not None, WEIGHTED=weight is not None, num_warps=warps,
    )  # fmt: skip
    if weight is not None:
        _add_up[(-(-D // 32),)](sums, d_weight, programs, D=D, COLUMNS=32, PARTS=64, num_warps=4)
    return dx, d_weight, d_gate


def _rows_of(x: Tensor | None) -> Tensor | None:
    return None if x is None else rows_of(x)


def _stride(rows: Tensor | None) -> int:
    return 0 if rows is None else rows.stride(0)


def _block(D: int, *, gradients: bool = False) -> tuple[int, int]:
    """Rows of a tile, and warps: 32 elements a thread, or 16 where there is more to hold of each and warps are few."""
    elements = max(power_of_two(D), 2048 if gradients else 4096)
    warps = elements // 1024
    return elements // power_of_two(D), min(2 * warps, max(16, warps)) if gradients else warps


def _outputs(x: Tensor, other: Tensor | None) -> tuple[Tensor, Tensor]:
    dtype = x.dtype if other is None else torch.result_type(x, other)
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    return y, x.new_empty(0) if other is None else torch.empty_like(y)


def _gradients(x: Tensor, weight: Tensor | None, gate: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        x.new_empty(0) if weight is None else torch.empty_like(weight, memory_format=torch.contiguous_format),
        x.new_empty(0) if gate is None else torch.empty_like(gate, memory_format=torch.contiguous_format),
    )


@fused_rms_norm.register_fake
def _(x: Tensor, weight: Tensor | None, gate: Tensor | None, other: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return _outputs(x, other)


@fused_rms_norm_backward.register_fake
def _(
    dy: Tensor, d_total: Tensor | None, x: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(x, weight, gate)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, weight, gate, other, ctx.eps = inputs
    ctx.dtypes = x.dtype, None if other is None else other.dtype
    ctx.save_for_backward(x if other is None else output[1], weight, gate)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_total: Tensor | None) -> tuple:
    x, weight, gate = ctx.saved_tensors
    own, others = ctx.dtypes
    dy = torch.zeros_like(x) if dy is None else dy
    dx, d_weight, d_gate = fused_rms_norm_backward(dy, d_total if others else None, x, weight, gate, ctx.eps)
    d_other = dx.to(others) if others else None
    return dx.to(own), None if weight is None else d_weight, None if gate is None else d_gate, d_other, None


differentiate(fused_rms_norm, _differentiate, _keep)

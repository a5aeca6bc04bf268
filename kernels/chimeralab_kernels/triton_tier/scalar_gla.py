"""Gated linear attention with no decay or one number a token and head, as two torch operators.

Between the passes only the inputs are kept, and the state before each segment where there are several.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.first_call import differentiate, operator
from chimeralab_kernels.triton_tier.gla_gradients import chunk_gradients, decay_gradient
from chimeralab_kernels.triton_tier.gla_packing import cut_time, fake_outputs, heads_first, sequences_first
from chimeralab_kernels.triton_tier.gla_plan import Cut, gradient_tile, output_tile, state_tile
from chimeralab_kernels.triton_tier.gla_scan import join_segments, scan
from chimeralab_kernels.triton_tier.launch import in_sixteens, strides


@operator("chimeralab::scalar_gla")
def scalar_gla(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    g: Tensor | None,  # B T H
    initial: Tensor | None,  # B H K V
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state before each segment (empty when there is one)."""
    (B, _, H, V), K = v.shape, k.shape[-1]
    cut = cut_time(k, v, cu_seqlens)
    y, starts = v.new_empty(v.shape), v.new_empty(cut.starts(k, v), dtype=torch.float32)
    final = v.new_empty((B, H, cut.sequences, K, V), dtype=torch.float32)
    start = heads_first(initial, cut)
    if starts.numel():
        _meet(cut, k, v, g, starts, start, scale)
        start = starts
    _scan(cut, q, k, v, g, scale, y=y, start=start, final=final)
    return y, sequences_first(final), starts


@operator("chimeralab::scalar_gla_backward")
def scalar_gla_backward(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dg and the initial state's gradient; the last two are empty where there is no such input."""
    B, T, H, V = v.shape
    G, K = k.shape[2:]
    cut = cut_time(k, v, cu_seqlens)
    dy = torch.zeros_like(v) if dy is None else dy
    start = starts if starts.numel() else heads_first(initial, cut)
    end = heads_first(d_final, cut)
    if starts.numel():
        ends = torch.empty_like(starts)
        _meet(cut, q, dy, g, ends, end, scale, backwards=True)
        end = ends

    each = v.dtype if G == H else torch.float32  # heads that share a group are added up
    dq, dk = (v.new_empty((B, T, H, K), dtype=each) for _ in range(2))
    dv = v.new_empty(v.shape)
    dg = v.new_empty((0,) if g is None else g.shape, dtype=torch.float32 if g is None else g.dtype)
    d_initial = None if initial is None else v.new_empty((B, H, cut.sequences, K, V), dtype=torch.float32)
    states = v.new_empty(B * H, cut.chunks, K, V)
    _scan(cut, k, k, v, g, scale, start=start, states=states)
    slopes = torch.empty_like(states)
    _scan(cut, k, q, dy, g, scale, y=dv, start=end, final=d_initial, states=slopes, backwards=True)
    tile = gradient_tile(K, V, v.dtype)
    blocks = -(-K // tile.block_k)
    q_dq, k_dk = (v.new_empty((blocks, B, T, H), dtype=torch.float32) for _ in range(2))
    whole = v.new_empty((blocks, B * H, cut.chunks), dtype=torch.float32)
    q, k, v, dy = (in_sixteens(x) for x in (q, k, v, dy))
    chunk_gradients[(2 * blocks * cut.chunks * B * H,)](
        q, k, v, dy, g, states, slopes, dq, dk, q_dq, k_dk, whole, cut.table,
        *(x for y in (q, k, v, dy, g) for x in strides(y)), B, T, H, cut.chunks, H // G, scale,
        K=K, V=V, BK=tile.block_k, BV=tile.block_v, C=cut.chunk, DECAYS=g is not None, PACKED=cut.table is not None,
        PRECISION="tf32x3" if k.dtype == torch.float32 else "tf32", num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    if g is not None:
        decay_gradient[(B * H * cut.chunks,)](
            q_dq, k_dk, whole, dg, cut.table, B, T, H, cut.chunks,
            BLOCKS=blocks, C=cut.chunk, PACKED=cut.table is not None, num_warps=1,
        )  # fmt: skip
    if G != H:
        dq, dk = (x.unflatten(2, (G, H // G)).sum(3).to(v.dtype) for x in (dq, dk))
    return dq, dk, dv, dg, v.new_empty(0) if initial is None else sequences_first(d_initial).to(initial.dtype)


def _meet(
    cut: Cut,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    starts: Tensor,
    initial: Tensor | None,
    scale: float,
    *,
    backwards: bool = False,
) -> None:
    """Into `starts` the state that each segment meets: each one's own first, then a scan over them."""
    kept = starts.new_empty(starts.shape[:2])
    _scan(cut, k, k, v, g, scale, final=starts, kept=kept, backwards=backwards)
    size, block = starts.shape[-2] * starts.shape[-1], 1024
    join_segments[(len(starts) * -(-size // block),)](
        starts, kept, initial, cut.segments,
        SIZE=size, SHARED=size, BLOCK=block, INITIAL=initial is not None, BACKWARDS=backwards,
    )  # fmt: skip


def _scan(
    cut: Cut,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    scale: float,
    *,
    y: Tensor | None = None,
    start: Tensor | None = None,
    final: Tensor | None = None,
    kept: Tensor | None = None,
    states: Tensor | None = None,
    backwards: bool = False,
) -> None:
    """Launch the scan."""
    B, T, _, K = k.shape
    V = v.shape[-1]
    H = max(k.shape[2], v.shape[2])
    tile = (state_tile if y is None else output_tile)(K, V, k.dtype)
    q, k, v = (in_sixteens(x) for x in (q, k, v))
    scan[(tile.blocks(K, V) * cut.segments * B * H,)](
        q, k, v, g, y, start, final, kept, states, cut.table, cut.offsets,
        *strides(q), *strides(k), *strides(v), *strides(g), *strides(y),
        T, H, cut.chunks,
        H // q.shape[2], H // k.shape[2], H // v.shape[2],
        cut.segments, cut.chunks_a_segment, scale,
        K=K, V=V, BK=tile.block_k, BV=tile.block_v, C=cut.chunk,
        BACKWARDS=backwards, DECAYS=g is not None, STARTS=start is not None, OUTPUT=y is not None,
        STATES=states is not None, ENDS=final is not None, PACKED=cut.table is not None,
        # float32 products as three of the tensor cores' keep float32's accuracy; others are exact as they are.
        PRECISION="tf32x3" if k.dtype == torch.float32 else "tf32",
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


@scalar_gla.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return fake_outputs(k, v, cu_seqlens)


@scalar_gla_backward.register_fake
def _(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dg = v.new_empty((0,), dtype=torch.float32) if g is None else g.new_empty(g.shape)
    d_initial = v.new_empty(0) if initial is None else initial.new_empty(initial.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dg, d_initial


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_final: Tensor | None, _: Any) -> tuple:
    *tensors, starts = ctx.saved_tensors
    *grads, dg, d_initial = scalar_gla_backward(dy, d_final, *tensors, starts, ctx.scale)
    g, initial = tensors[3:5]
    return *grads, None if g is None else dg, None if initial is None else d_initial, None, None


differentiate(scalar_gla, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.scalar_gla)
def _flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    (B, T, G, K), (H, V) = k, v[2:]
    return int(ops.gated_linear_attention_cost(H, G, K, V).prefill_flops(T) * B * T)


@register_flop_formula(torch.ops.chimeralab.scalar_gla_backward)
def _backward_flops(dy: Any, d_final: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return 2 * _flops(q, k, v)

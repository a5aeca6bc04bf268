"""Gated linear attention with a decay by channel, a bonus, or both, as two torch operators.

Between the passes only the inputs are kept, and the state before each segment where there are several.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.channel_gradients import within_chunks_backward
from chimeralab_kernels.triton_tier.channel_scan import channel_scan
from chimeralab_kernels.triton_tier.channel_within import within_chunks
from chimeralab_kernels.triton_tier.first_call import differentiate, operator
from chimeralab_kernels.triton_tier.gla_packing import cut_time, fake_outputs, heads_first, sequences_first
from chimeralab_kernels.triton_tier.gla_plan import Cut, output_tile, state_tile, within_tile
from chimeralab_kernels.triton_tier.gla_scan import join_segments
from chimeralab_kernels.triton_tier.launch import aligned, in_sixteens


class Decayed(NamedTuple):
    """Of each chunk, what the scan takes; B·H chunks …"""

    queries: Tensor  # C K
    keys: Tensor  # C K
    scores: Tensor  # C C
    kept: Tensor  # K, logarithms
    steep: Tensor  # whether it decays too strongly to be taken as one block


@operator("chimeralab::channel_gla")
def channel_gla(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    g: Tensor,  # B T H K
    u: Tensor | None,  # H K
    initial: Tensor | None,  # B H K V
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state before each segment (empty when there is one)."""
    (B, _, H, V), K = v.shape, k.shape[-1]
    q, k, v, g = aligned(q, k, v, g)
    cut = cut_time(k, v, cu_seqlens)
    y, starts = v.new_empty(v.shape), v.new_empty(cut.starts(k, v), dtype=torch.float32)
    final = v.new_empty((B, H, cut.sequences, K, V), dtype=torch.float32)
    start = heads_first(initial, cut)
    decayed = _within_chunks(cut, q, k, g, u, scale)
    if starts.numel():
        _meet(cut, decayed.keys, v, decayed.kept, starts, start)
        start = starts
    _scan(
        cut, v, decayed.keys, decayed.kept,
        queries=decayed.queries, scores=decayed.scores, y=y, start=start, final=final,
    )  # fmt: skip
    return y, sequences_first(final), starts


@operator("chimeralab::channel_gla_backward")
def channel_gla_backward(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dg and the gradients of bonus and initial state, empty where there is no such input."""
    B, T, H, V = v.shape
    G, K = k.shape[2:]
    q, k, v, g = aligned(q, k, v, g)
    cut = cut_time(k, v, cu_seqlens)
    dy = torch.zeros_like(v) if dy is None else in_sixteens(dy)
    decayed = _within_chunks(cut, q, k, g, u, scale)
    start = starts if starts.numel() else heads_first(initial, cut)
    end = heads_first(d_final, cut)
    states, d_states = (v.new_empty((B * H, cut.chunks, K, V)) for _ in range(2))
    _scan(cut, v, decayed.keys, decayed.kept, start=start, states=states)
    if starts.numel():
        ends = torch.empty_like(starts)
        _meet(cut, decayed.queries, dy, decayed.kept, ends, end, backwards=True)
        end = ends
    dv = v.new_empty(v.shape)
    first = None if initial is None else v.new_empty((B, H, cut.sequences, K, V), dtype=torch.float32)
    _scan(
        cut, dy, decayed.queries, decayed.kept,
        queries=decayed.keys, scores=decayed.scores, y=dv, start=end, final=first, states=d_states, backwards=True,
    )  # fmt: skip

    each = v.dtype if G == H else torch.float32  # heads that share a group are added up
    dq, dk = (v.new_empty((B, T, H, K), dtype=each) for _ in range(2))
    dg = g.new_empty(g.shape)
    du = None if u is None else v.new_empty((B, H, cut.chunks, K), dtype=torch.float32)
    tile = within_tile(K, V, v.dtype, backward=True)
    for flat in (True, False):
        within_chunks_backward[(-(-K // tile.block_k) * cut.chunks * B * H,)](
            q, k, g, u, v, dy, states, d_states, dq, dk, dg, du, decayed.steep, cut.table,
            *q.stride()[:3], *k.stride()[:3], *g.stride(), *v.stride()[:3], *dy.stride()[:3],
            T, H, cut.chunks, H // G, scale,
            K=K, V=V, BK=tile.block_k, BV=tile.block_v, **_constants(cut, v, u, flat=flat),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    if G != H:
        dq, dk = (x.unflatten(2, (G, H // G)).sum(3).to(v.dtype) for x in (dq, dk))
    du = v.new_empty(0) if u is None else du.sum((0, 2)).to(u.dtype)
    return dq, dk, dv, dg, du, v.new_empty(0) if initial is None else sequences_first(first).to(initial.dtype)


def _within_chunks(cut: Cut, q: Tensor, k: Tensor, g: Tensor, u: Tensor | None, scale: float) -> Decayed:
    B, T, H, K = g.shape
    C, heads = cut.chunk, B * H
    decayed = Decayed(
        q.new_empty((heads, cut.chunks, C, K)),
        q.new_empty((heads, cut.chunks, C, K)),
        q.new_empty((heads, cut.chunks, C, C)),
        q.new_empty((heads, cut.chunks, K), dtype=torch.float32),
        q.new_empty((heads, cut.chunks), dtype=torch.int8),
    )
    tile = within_tile(K, K, q.dtype)
    for flat in (True, False):
        within_chunks[(heads * cut.chunks,)](
            q, k, g, u, *decayed, cut.table,
            *q.stride()[:3], *k.stride()[:3], *g.stride(),
            T, H, cut.chunks, H // q.shape[2], scale,
            K=K, BK=tile.block_k, **_constants(cut, q, u, flat=flat), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return decayed


def _constants(cut: Cut, x: Tensor, u: Tensor | None, *, flat: bool) -> dict[str, Any]:
    single = x.dtype == torch.float32
    return {
        "FLAT": flat,
        "C": cut.chunk, "LEVELS": cut.chunk.bit_length() - 1, "PACKED": cut.table is not None,
        "BONUS": u is not None, "LIMIT": 8 if x.dtype == torch.float16 else 64,
        # float32 products as three of the tensor cores' keep float32's accuracy; others are exact as they are.
        # In chunks that are not flat Triton 3.6 compiles these three to a kernel whose scores are wrong.
        "SPLIT": not single, "PRECISION": ("tf32x3" if flat else "ieee") if single else "tf32",
    }  # fmt: skip


def _meet(
    cut: Cut, keys: Tensor, v: Tensor, kept: Tensor, starts: Tensor, initial: Tensor | None, *, backwards: bool = False
) -> None:
    """Into `starts` the state that each segment meets: each one's own first, then a scan over them."""
    left = starts.new_empty(starts.shape[:3])
    _scan(cut, v, keys, kept, final=starts, left=left, backwards=backwards)
    K, V = starts.shape[2:]
    block = 1024
    join_segments[(len(starts) * -(-K * V // block),)](
        starts, left, initial, cut.segments,
        SIZE=K * V, SHARED=V, BLOCK=block, INITIAL=initial is not None, BACKWARDS=backwards,
    )  # fmt: skip


def _scan(
    cut: Cut,
    v: Tensor,
    keys: Tensor,
    kept: Tensor,
    *,
    queries: Tensor | None = None,
    scores: Tensor | None = None,
    y: Tensor | None = None,
    start: Tensor | None = None,
    final: Tensor | None = None,
    left: Tensor | None = None,
    states: Tensor | None = None,
    backwards: bool = False,
) -> None:
    B, T, H, V = v.shape
    K = keys.shape[-1]
    tile = (state_tile if y is None else output_tile)(K, V, v.dtype)
    packed = cut.table is not None
    channel_scan[(tile.blocks(K, V) * cut.segments * B * H,)](
        queries, keys, v, scores, kept, y, start, final, left, states, cut.table, cut.offsets,
        *v.stride()[:3], *((0, 0, 0) if y is None else y.stride()[:3]),
        T, H, cut.chunks, cut.segments, cut.chunks_a_segment,
        K=K, V=V, BK=tile.block_k, BV=tile.block_v, C=cut.chunk,
        BACKWARDS=backwards, STARTS=start is not None, OUTPUT=y is not None, STATES=states is not None,
        ENDS=final is not None, EACH=packed or y is None, LEFT=left is not None, PACKED=packed,
        PRECISION="tf32x3" if v.dtype == torch.float32 else "tf32",
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


@channel_gla.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return fake_outputs(k, v, cu_seqlens)


@channel_gla_backward.register_fake
def _(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    optional = (v.new_empty(0) if x is None else x.new_empty(x.shape) for x in (u, initial))
    return tuple(x.new_empty(x.shape) for x in (q, k, v, g)) + tuple(optional)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_final: Tensor | None, _: Any) -> tuple:
    *tensors, starts = ctx.saved_tensors
    *grads, du, d_initial = channel_gla_backward(dy, d_final, *tensors, starts, ctx.scale)
    u, initial = tensors[4:6]
    return *grads, None if u is None else du, None if initial is None else d_initial, None, None


differentiate(channel_gla, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.channel_gla)
def _flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    (B, T, G, K), (H, V) = k, v[2:]
    return int(ops.gated_linear_attention_cost(H, G, K, V, channel_decay=True).prefill_flops(T) * B * T)


@register_flop_formula(torch.ops.chimeralab.channel_gla_backward)
def _backward_flops(dy: Any, d_final: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return 2 * _flops(q, k, v)

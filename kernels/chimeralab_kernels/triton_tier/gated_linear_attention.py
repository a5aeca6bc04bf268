"""Gated linear attention with no decay or one number a token and head, as two torch operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.gla_backward import scan_backwards, segment_gradients
from chimeralab_kernels.triton_tier.gla_forward import join_segments, scan
from chimeralab_kernels.triton_tier.gla_plan import Launch, Plan, plan


def gated_linear_attention(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    log_decay: Tensor | None = None,  # H | B T H
    bonus: None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: None = None,
) -> tuple[Tensor, Tensor]:
    if log_decay is not None:
        log_decay = log_decay.expand(v.shape[:3])
    y, final, _ = scalar_gla(q, k, v, log_decay, initial_state, q.shape[-1] ** -0.5 if scale is None else scale)
    return y, final


@torch.library.custom_op("chimeralab::scalar_gla", mutates_args=())
def scalar_gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state before each segment (empty when there is one) for the backward pass."""
    cut = _plan(k, v)
    y, final, starts = _outputs(k, v, cut)
    initial = None if initial is None else initial.contiguous()
    if cut.segments > 1:
        kept = final.new_empty(starts.shape[:2])
        _scan(cut, cut.states, q, k, v, g, None, scale, ends=(starts, kept))
        _join(cut, starts, kept, initial, decays=g is not None)
    begin = starts if cut.segments > 1 else initial
    _scan(cut, cut.output, q, k, v, g, begin, scale, y=y, ends=(final, final))
    return y, final, starts


@torch.library.custom_op("chimeralab::scalar_gla_backward", mutates_args=())
def scalar_gla_backward(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    initial: Tensor | None,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dg and the initial state's gradient; the last two are empty where there is no such input."""
    B, T, H, V = v.shape
    G, K = k.shape[2:]
    cut = _plan(k, v)
    tile = cut.gradient
    blocks = tile.blocks(K, V)
    whole = blocks == 1 and G == H
    d_final = None if d_final is None else d_final.contiguous()
    dy = torch.zeros_like(v) if dy is None else _unit_stride(dy)

    states = v.new_empty(B * H, -(-T // cut.chunk), K, V)
    begin = starts if cut.segments > 1 else None if initial is None else initial.contiguous()
    _scan(cut, cut.states, q, k, v, g, begin, scale, states=states)
    ends = d_final
    if cut.segments > 1:
        ends = starts.new_empty(B * H, cut.segments, K, V)
        kept = starts.new_empty(B * H, cut.segments)
        _segment_gradients(cut, q, dy, g, ends, kept, scale)
        _join(cut, ends, kept, d_final, decays=g is not None, backwards=True)

    slots = v.dtype if whole else torch.float32
    dq, dk = (torch.empty(blocks, B, T, H, K, dtype=slots, device=v.device) for _ in range(2))
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    dg = dv.new_empty((blocks, B, T, H) if g is not None else (0,), dtype=torch.float32)
    d_initial = dv.new_empty((B, H, K, V) if initial is not None else (0,), dtype=torch.float32)
    q, k, v = (_unit_stride(x) for x in (q, k, v))
    scan_backwards[(blocks * cut.segments * B * H,)](
        q, k, v, g, dy, states, ends, dq, dk, dv, dg, d_initial,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *_strides(g), *dy.stride()[:3],
        B, T, H, H // G, cut.segments, cut.chunks_a_segment, scale,
        K=K, V=V, BK=tile.block_k, BV=tile.block_v, C=cut.chunk,
        DECAYS=g is not None, ENDS=ends is not None, INITIAL=initial is not None,
        PRECISION=_precision(v), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    if whole:
        dq, dk = dq[0], dk[0]
    else:  # over the blocks of values, and the heads that share a group
        dq, dk = (x.unflatten(3, (G, H // G)).sum((0, 4)).to(v.dtype) for x in (dq, dk))
    dg = dg.sum(0).to(g.dtype) if g is not None else dg
    return dq, dk, dv, dg, d_initial if initial is None else d_initial.to(initial.dtype)


def _plan(k: Tensor, v: Tensor) -> Plan:
    B, T, H, V = v.shape
    return plan(B, H, T, k.shape[-1], V, v.dtype)


def _outputs(k: Tensor, v: Tensor, cut: Plan) -> tuple[Tensor, Tensor, Tensor]:
    B, _, H, V = v.shape
    K = k.shape[-1]
    starts = (B * H, cut.segments, K, V) if cut.segments > 1 else (0,)
    return (
        v.new_empty(v.shape),
        v.new_empty((B, H, K, V), dtype=torch.float32),
        v.new_empty(starts, dtype=torch.float32),
    )


def _scan(
    cut: Plan,
    tile: Launch,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    start: Tensor | None,
    scale: float,
    *,
    y: Tensor | None = None,
    states: Tensor | None = None,
    ends: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Forwards, writing what is given: y; the state before each chunk; the last state, or without y each segment's."""
    B, T, H, V = v.shape
    G, K = k.shape[2:]
    q, k, v = (_unit_stride(x) for x in (q, k, v))
    final, kept = ends or (None, None)
    scan[(tile.blocks(K, V) * cut.segments * B * H,)](
        q, k, v, g, start, y, states, final, kept,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *_strides(g), *(y if y is not None else v).stride()[:3],
        T, H, H // G, cut.segments, cut.chunks_a_segment, scale,
        K=K, V=V, BK=tile.block_k, BV=tile.block_v, C=cut.chunk,
        DECAYS=g is not None, STARTS=start is not None, OUTPUT=y is not None, KEEP=states is not None,
        ENDS=0 if ends is None else 1 if y is not None else 2,
        PRECISION=_precision(v), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def _segment_gradients(
    cut: Plan, q: Tensor, dy: Tensor, g: Tensor | None, d_states: Tensor, kept: Tensor, scale: float
) -> None:
    B, T, H, V = dy.shape
    G, K = q.shape[2:]
    tile = cut.states
    q = _unit_stride(q)
    segment_gradients[(tile.blocks(K, V) * cut.segments * B * H,)](
        q, dy, g, d_states, kept,
        *q.stride()[:3], *dy.stride()[:3], *_strides(g),
        T, H, H // G, cut.segments, cut.chunks_a_segment, scale,
        K=K, V=V, BK=tile.block_k, BV=tile.block_v, C=cut.chunk,
        DECAYS=g is not None, PRECISION=_precision(q), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def _join(
    cut: Plan, ends: Tensor, kept: Tensor, initial: Tensor | None, *, decays: bool, backwards: bool = False
) -> None:
    size, block = ends.shape[-2] * ends.shape[-1], 1024
    join_segments[(len(ends) * -(-size // block),)](
        ends, kept, initial, cut.segments,
        SIZE=size, BLOCK=block, INITIAL=initial is not None, DECAYS=decays, BACKWARDS=backwards,
    )  # fmt: skip


def _strides(g: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if g is None else g.stride()


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _precision(x: Tensor) -> str:
    """float32 products as three of tensor cores', which keeps float32's accuracy; others are exact as they are."""
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


@scalar_gla.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(k, v, _plan(k, v))


@scalar_gla_backward.register_fake
def _(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    initial: Tensor | None,
    starts: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    empty = v.new_empty((0,), dtype=torch.float32)
    dg = empty if g is None else g.new_empty(g.shape)
    d_initial = empty if initial is None else initial.new_empty(initial.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dg, d_initial


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_final: Tensor | None, _: Any) -> tuple:
    q, k, v, g, initial, starts = ctx.saved_tensors
    *grads, dg, d_initial = scalar_gla_backward(dy, d_final, q, k, v, g, initial, starts, ctx.scale)
    return *grads, None if g is None else dg, None if initial is None else d_initial, None


scalar_gla.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.chimeralab.scalar_gla)
def _flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    (B, T, G, K), (H, V) = k, v[2:]
    return int(ops.gated_linear_attention_cost(H, G, K, V).prefill_flops(T) * B * T)


@register_flop_formula(torch.ops.chimeralab.scalar_gla_backward)
def _backward_flops(dy: Any, d_final: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return 2 * _flops(q, k, v)

"""The delta rule as two torch operators, forward and backward.

Between the passes only the inputs are kept, each chunk's triangular matrix (C numbers a token and head), and where
there are several segments the state that each meets and by what matrix each multiplies it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.packing import check_offsets
from chimeralab_kernels.triton_tier.delta_channel_gradients import delta_channel_gradients
from chimeralab_kernels.triton_tier.delta_chunks import (
    Chunks,
    channel_chunks,
    invert,
    matrices,
    meet,
    precision,
    scalar_chunks,
    scan,
    transitions,
    within_constants,
)
from chimeralab_kernels.triton_tier.delta_general_gradients import delta_general_gradients
from chimeralab_kernels.triton_tier.delta_gradients import delta_gradients
from chimeralab_kernels.triton_tier.delta_plan import (
    filled,
    gradient_tile,
    halves_pairs,
    plan,
    system_parts,
    within_tile,
)
from chimeralab_kernels.triton_tier.delta_step import delta_step
from chimeralab_kernels.triton_tier.first_call import differentiate, operator
from chimeralab_kernels.triton_tier.gla_packing import cut_sequences, heads_first, sequences_first
from chimeralab_kernels.triton_tier.gla_plan import Cut
from chimeralab_kernels.triton_tier.launch import aligned, fill, in_sixteens, matrix_size, strides, unit_stride


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
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if cu_seqlens is not None:
        check_offsets(cu_seqlens, v)
    if a is not None:  # then values are written as they are, and every channel has its decay
        v = v if beta is None else (v * beta.unsqueeze(-1)).to(v.dtype)
        log_decay = v.new_zeros(1, 1, 1) if log_decay is None else log_decay
        log_decay = log_decay if log_decay.dim() == 4 else log_decay.unsqueeze(-1)
        beta, log_decay = None, log_decay.expand(a.shape)
    (K, V), g = (k.shape[-1], v.shape[-1]), log_decay
    by_channel = g is not None and g.dim() == 4
    if v.shape[1] > 1 or cu_seqlens is not None or torch.is_grad_enabled():  # the step alone takes sizes as they are
        key_dim, value_dim = filled(K, V, v.dtype, by_channel=by_channel, general=a is not None)
        q, k, a, b = (None if x is None else fill(x, key_dim) for x in (q, k, a, b))
        v, g = fill(v, value_dim), fill(g, key_dim) if by_channel else g
        initial_state = None if initial_state is None else fill(initial_state, value_dim, key_dim)
    y, final, *_ = delta_forward(q, k, v, beta, g, a, b, initial_state, cu_seqlens, scale)
    return (y, final) if y.shape[-1] == V and k.shape[-1] == K else (y[..., :V], final[..., :K, :V])


@operator("chimeralab::delta_rule")
def delta_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the final state, each chunk's `system`, and of each segment the state that it meets and its matrix (empty
    when there is one)."""
    cut = _cut(k, v, cu_seqlens)
    y, final, system, starts, transition = _outputs(k, v, g, cut)
    if v.shape[1] == 1 and cu_seqlens is None:
        _step(q, k, v, beta, g, a, b, initial, scale, y, final)
        return y, final, system, starts, transition
    q, k, v, g, a, b = aligned(q, k, v, g, a, b)
    chunks = _chunks(cut, q, k, v, beta, g, a, b, system, scale)
    invert(chunks)
    start = heads_first(initial, cut)
    if starts.numel():
        transition = transitions(cut, chunks, v.shape[2])
        start = starts = meet(cut, chunks, v, transition, start)
    (B, _, H, V), K = v.shape, k.shape[-1]
    ends = final.view(B, H, cut.sequences, K, V)
    scan(cut, chunks, v, H, y=y, start=start, final=ends)
    return y, sequences_first(ends), system, starts, transition


@operator("chimeralab::delta_rule_backward")
def delta_backward(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    system: Tensor,
    starts: Tensor,
    transition: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dβ, dg, da, db and the initial state's gradient; those without an input are empty."""
    B, T, H, V = v.shape
    G, K = k.shape[2:]
    cut = _cut(k, v, cu_seqlens)
    q, k, v, g, a, b = aligned(q, k, v, g, a, b)
    dy = torch.zeros_like(v) if dy is None else in_sixteens(dy)
    if T == 1 and cu_seqlens is None:  # the step has not written it
        system = torch.zeros_like(system)
    chunks = _chunks(cut, q, k, v, beta, g, a, b, system, scale, again=True)
    start = starts if starts.numel() else heads_first(initial, cut)
    end = heads_first(d_final, cut)
    if starts.numel():
        end = meet(cut, chunks, dy, transition, end, backwards=True)

    states, ends = (v.new_empty(B * H, cut.chunks, V, K) for _ in range(2))
    e, dr = (v.new_empty(v.shape) for _ in range(2))
    dv = dr if a is None else v.new_empty(v.shape)  # without a and b a value is written as it is
    d_initial = None if initial is None else v.new_empty((B, H, cut.sequences, K, V), dtype=torch.float32)
    scan(cut, chunks, v, H, e=e, states=states, start=start)
    scan(
        cut, chunks, dy, H, backwards=True, y=None if a is None else dv, e=dr, states=ends, start=end, final=d_initial
    )  # fmt: skip
    each = v.dtype if G == H else torch.float32  # heads that share a group are added up
    dq, dk = (v.new_empty((B, T, H, K), dtype=each) for _ in range(2))
    dbeta, dg, da, db = (None if x is None else x.new_empty(x.shape) for x in (beta, g, a, b))
    if chunks.steep is not None:
        parts = None
        for flat in (True, False):
            tile = within_tile(v.dtype, general=a is not None, flat=flat)
            blocks = -(-K // tile.block_k)
            grid, sizes = (B * H * cut.chunks * blocks,), (T, H, cut.chunks, H // G, scale)
            options = {
                "K": K, "V": V, "BK": tile.block_k, "BV": tile.block_v, **within_constants(cut, v, flat),
                "num_warps": tile.warps, "num_stages": tile.stages,
            }  # fmt: skip
            if a is not None:
                delta_general_gradients[grid](
                    q, k, a, b, g, v, dy, e, dr, states, ends, chunks.steep, dq, dk, da, db, dg, cut.table,
                    *(stride for x in (q, k, a, b) for stride in strides(x)), *g.stride(),
                    *(stride for x in (v, dy) for stride in strides(x)), *sizes,
                    HALVES=halves_pairs(K, v.dtype), **options,
                )  # fmt: skip
                continue
            if beta is not None and parts is None:
                parts = v.new_empty((blocks, *beta.shape), dtype=torch.float32)
            delta_channel_gradients[grid](
                q, k, g, beta, dy, e, dr, states, ends, chunks.steep, dq, dk, dg, parts, cut.table,
                *strides(q), *strides(k), *g.stride(), *strides(beta), *strides(dy), B, *sizes,
                BETAS=beta is not None, **options,
            )  # fmt: skip
        dbeta = None if parts is None else parts.sum(0).to(beta.dtype)
    else:
        part = gradient_tile(K, V, v.dtype, decays=g is not None)
        delta_gradients[(B * H * cut.chunks,)](
            q, k, e, dr, dy, g, beta, chunks.overlaps, chunks.from_e, states, ends, dq, dk, dg, dbeta,
            cut.table,
            *(stride for x in (q, k, dy, g, beta) for stride in strides(x)),
            T, H, cut.chunks, H // G, scale,
            K=K, V=V, BK=part.block_k, BV=matrix_size(V), C=cut.chunk, DECAYS=g is not None,
            BETAS=beta is not None, PACKED=cut.table is not None, HALVES=g is None and halves_pairs(K, v.dtype),
            PRECISION=precision(v), num_warps=part.warps, num_stages=part.stages,
        )  # fmt: skip
    if G != H:
        dq, dk = (x.unflatten(2, (G, H // G)).sum(3).to(v.dtype) for x in (dq, dk))
    d_initial = None if d_initial is None else sequences_first(d_initial).to(initial.dtype)
    return dq, dk, dv, *(v.new_empty(0) if x is None else x for x in (dbeta, dg, da, db, d_initial))


def _step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial: Tensor | None,
    scale: float,
    y: Tensor,
    final: Tensor,
) -> None:
    """One token: one launch."""
    (B, _, H, V), (G, K) = v.shape, k.shape[2:]
    q, k, v = (unit_stride(x) for x in (q, k, v))
    a, b = (None if x is None else unit_stride(x) for x in (a, b))
    initial = None if initial is None else initial.contiguous()
    by_channel = g is not None and g.dim() == 4
    block = min(matrix_size(V), 32)
    delta_step[(B * H * -(-V // block),)](
        q, k, v, g, beta, a, b, initial, y, final,
        *(stride for x in (q, k, v) for stride in strides(x)[::2]),
        *strides(g)[::2], g.stride(3) if by_channel else 0,
        *(stride for x in (beta, a, b) for stride in strides(x)[::2]),
        H, H // G, scale,
        K=K, V=V, BK=matrix_size(K), BV=block, DECAYS=g is not None, BY_CHANNEL=by_channel,
        BETAS=beta is not None, GENERAL=a is not None, STARTS=initial is not None, num_warps=4,
    )  # fmt: skip


def _chunks(
    cut: Cut,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    system: Tensor,
    scale: float,
    again: bool = False,
) -> Chunks:
    """What the scans need. `again`: `system` is known."""
    if g is None or g.dim() == 3:
        return scalar_chunks(cut, q, k, v, beta, g, system, scale, overlaps=g is not None or not again)
    return channel_chunks(cut, q, k, v, beta, g, a, b, system, scale, overlaps=not again)


def _cut(k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Cut:
    B, T, H, V = v.shape
    cut = plan(B, H, T, k.shape[-1], V, v.dtype)
    return cut if cu_seqlens is None else cut_sequences(v, cu_seqlens, cut.chunk)


def _outputs(k: Tensor, v: Tensor, g: Tensor | None, cut: Cut) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, V = v.shape
    K = k.shape[-1]
    met = cut.starts(k, v)
    shapes = ((B * cut.sequences, H, K, V), met, (*met[:2], K, K) if len(met) > 1 else (0,))
    final, starts, transition = (v.new_empty(shape, dtype=torch.float32) for shape in shapes)
    system = matrices(cut, v, v.dtype, system_parts(v.dtype, decays=g is not None))
    return v.new_empty(v.shape), final, system, starts, transition


@delta_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _outputs(k, v, g, _cut(k, v, cu_seqlens))


@delta_backward.register_fake
def _(
    dy: Tensor | None,
    d_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    system: Tensor,
    starts: Tensor,
    transition: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    empty = (v.new_empty(0) if x is None else x.new_empty(x.shape) for x in (beta, g, a, b, initial))
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), *empty


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_final: Tensor | None, *_: Any) -> tuple:
    inputs = ctx.saved_tensors[:8]
    grads = delta_backward(dy, d_final, *ctx.saved_tensors, ctx.scale)
    return *(None if x is None else grad for x, grad in zip(inputs, grads, strict=True)), None, None


differentiate(delta_forward, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.delta_rule)
def _flops(q: Any, k: Any, v: Any, beta: Any, g: Any, a: Any, *_: Any, **__: Any) -> int:
    (B, T, G, K), (H, V) = k, v[2:]
    by_channel = g is not None and len(g) == 4
    cost = ops.delta_rule_cost(H, G, K, V, channel_decay=by_channel, general=a is not None)
    return int(cost.prefill_flops(T) * B * T)


@register_flop_formula(torch.ops.chimeralab.delta_rule_backward)
def _backward_flops(dy: Any, d_final: Any, *inputs: Any, **_: Any) -> int:
    return 2 * _flops(*inputs)

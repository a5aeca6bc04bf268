"""One token of gated linear attention, for decoding: one kernel reads the state, writes the next and the output."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.triton_tier.first_call import jit, operator


@jit
def step(
    q,  # B 1 G K
    k,  # B 1 G K
    v,  # B 1 H V
    g,  # B 1 H, or B 1 H K, logarithms
    u,  # H K
    state,  # B H K V
    y,  # B 1 H V
    final,  # B H K V
    q_b, q_h, q_k, k_b, k_h, k_k, v_b, v_h, v_v, g_b, g_h, g_k, u_h, u_k, s_b, s_h, s_k, s_v,  # strides
    H, heads_a_group, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    DECAYS: tl.constexpr, BONUS: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """One program: BV columns of one head's state."""
    blocks: tl.constexpr = (V + BV - 1) // BV
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = head // H, head % H
    row, column = tl.arange(0, BK), tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    in_k, in_v = row < K, column < V
    inside = in_k[:, None] & in_v[None, :]
    query = tl.load(q + b * q_b + h // heads_a_group * q_h + row * q_k, mask=in_k, other=0.0).to(tl.float32)
    key = tl.load(k + b * k_b + h // heads_a_group * k_h + row * k_k, mask=in_k, other=0.0).to(tl.float32)
    value = tl.load(v + b * v_b + h * v_h + column * v_v, mask=in_v, other=0.0).to(tl.float32)
    new = key[:, None] * value[None, :]
    before = tl.zeros([BK, BV], tl.float32)
    if STARTS:
        at = state + b * s_b + h * s_h + row[:, None] * s_k + column[None, :] * s_v
        before = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    after = before
    if DECAYS:
        decay = tl.load(g + b * g_b + h * g_h + row * g_k, mask=in_k, other=0.0).to(tl.float32)
        after *= tl.exp(decay)[:, None]
    after += new
    read = after
    if BONUS:
        read = before + tl.load(u + h * u_h + row * u_k, mask=in_k, other=0.0).to(tl.float32)[:, None] * new
    out = tl.sum(read * query[:, None], 0) * scale
    tl.store(y + head * V + column, out.to(y.dtype.element_ty), mask=in_v)
    tl.store(final + head * K * V + row[:, None] * V + column[None, :], after, mask=inside)


@operator("chimeralab::gla_step")
def gla_step(
    q: Tensor,  # B 1 G K
    k: Tensor,  # B 1 G K
    v: Tensor,  # B 1 H V
    g: Tensor | None,  # B 1 H | B 1 H K
    u: Tensor | None,  # H K
    initial: Tensor | None,  # B H K V
    scale: float,
) -> tuple[Tensor, Tensor]:
    """y and the state after the token; not differentiable."""
    B, _, H, V = v.shape
    G, K = k.shape[2:]
    y, final = _outputs(k, v)
    block_k = triton.next_power_of_2(K)
    block_v = max(1, min(triton.next_power_of_2(V), 4096 // block_k))
    decay = (0, 0, 0) if g is None else (g.stride(0), g.stride(2), g.stride(3) if g.dim() == 4 else 0)
    step[(B * H * -(-V // block_v),)](
        q, k, v, g, u, initial, y, final,
        *(x.stride(i) for x in (q, k, v) for i in (0, 2, 3)), *decay,
        *((0, 0) if u is None else u.stride()), *((0, 0, 0, 0) if initial is None else initial.stride()),
        H, H // G, scale, K=K, V=V, BK=block_k, BV=block_v,
        DECAYS=g is not None, BONUS=u is not None, STARTS=initial is not None,
    )  # fmt: skip
    return y, final


def _outputs(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    B, _, H, V = v.shape
    return v.new_empty(v.shape), v.new_empty((B, H, k.shape[-1], V), dtype=torch.float32)


@gla_step.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, u: Tensor | None, initial: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    return _outputs(k, v)


@register_flop_formula(torch.ops.chimeralab.gla_step)
def _flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    (B, _, G, K), (H, V) = k, v[2:]
    return int(ops.gated_linear_attention_cost(H, G, K, V).decode_flops(0) * B)

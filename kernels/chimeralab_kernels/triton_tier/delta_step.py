"""One token of the delta rule, as a Triton kernel: the state is read once and written once."""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit


@jit
def delta_step(
    q, k,  # B 1 G K
    v,  # B 1 H V
    g,  # B 1 H | B 1 H K
    beta,  # B 1 H
    a, b,  # B 1 H K
    initial,  # B H K V
    y,  # B 1 H V
    final,  # B H K V
    q_b, q_h, k_b, k_h, v_b, v_h, g_b, g_h, g_k, beta_b, beta_h, a_b, a_h, b_b, b_h,  # strides
    H, group_heads, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    DECAYS: tl.constexpr, BY_CHANNEL: tl.constexpr, BETAS: tl.constexpr, GENERAL: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """One program: BV columns of one head's state."""
    blocks: tl.constexpr = (V + BV - 1) // BV
    head = (tl.program_id(0) // blocks).to(tl.int64)
    n, h = head // H, head % H
    row = tl.arange(0, BK)
    column = tl.program_id(0) % blocks * BV + tl.arange(0, BV)
    in_k, in_v = row < K, column < V
    tile = head * K * V + row[:, None] * V + column[None, :]
    in_tile = in_k[:, None] & in_v[None, :]
    query = tl.load(q + n * q_b + h // group_heads * q_h + row, mask=in_k, other=0.0).to(tl.float32)
    key = tl.load(k + n * k_b + h // group_heads * k_h + row, mask=in_k, other=0.0).to(tl.float32)
    value = tl.load(v + n * v_b + h * v_h + column, mask=in_v, other=0.0).to(tl.float32)
    S = tl.zeros([BK, BV], tl.float32)
    if STARTS:
        S = tl.load(initial + tile, mask=in_tile, other=0.0).to(tl.float32)
    if GENERAL:
        reader = tl.load(a + n * a_b + h * a_h + row, mask=in_k, other=0.0).to(tl.float32)
        held = tl.sum(reader[:, None] * S, 0)
    if DECAYS:
        if BY_CHANNEL:
            decay = tl.load(g + n * g_b + h * g_h + row * g_k, mask=in_k, other=0.0).to(tl.float32)
            S *= tl.exp(decay)[:, None]
        else:
            S *= tl.exp(tl.load(g + n * g_b + h * g_h).to(tl.float32))
    if GENERAL:
        writer = tl.load(b + n * b_b + h * b_h + row, mask=in_k, other=0.0).to(tl.float32)
        S += writer[:, None] * held[None, :] + key[:, None] * value[None, :]
    else:
        change = value - tl.sum(key[:, None] * S, 0)
        if BETAS:
            change *= tl.load(beta + n * beta_b + h * beta_h).to(tl.float32)
        S += key[:, None] * change[None, :]
    tl.store(y + head * V + column, (tl.sum(query[:, None] * S, 0) * scale).to(y.dtype.element_ty), mask=in_v)
    tl.store(final + tile, S, mask=in_tile)

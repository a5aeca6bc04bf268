"""Linear attention and its kin: a matrix state a head."""

from __future__ import annotations

from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import CHUNK, dispatch


def gated_linear_attention(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    log_decay: Tensor | None = None,  # H | B T H | B T H K
    bonus: Tensor | None = None,  # H K
    scale: float | None = None,
    *,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp g_t) S_{t-1} + k_t v_tᵀ,  y_t = scale · q_tᵀ S_t.

    The decay g is absent (1), fixed by head, a scalar for each token and head, or a vector over K. With `bonus` u
    the output reads S_{t-1} + diag(u) k_t v_tᵀ instead (RWKV-5/6). Head h uses group h // (H / G).
    Source: GLA (arXiv 2312.06635); Mamba-2's SSD (arXiv 2405.21060) is the scalar case.

    Args:
        scale: multiplies the output; default 1/√K.

    Returns:
        y: B T H V in the dtype of `v`; final state: B H K V in float32 or better.
    """
    return dispatch("gated_linear_attention", q, k, v, log_decay, bonus, scale, initial_state, cu_seqlens)


def gated_linear_attention_cost(
    heads: int, groups: int, key_dim: int, value_dim: int, *, channel_decay: bool = False
) -> Cost:
    """Chunked, with chunks of Q: scores 2QK a group, output 2QV a head, reading and writing the state 2KV each.

    With a decay by channel the scores are a head's own, and only pairs of different tokens take a product: (Q − 1)K.
    """
    read_write = 4.0 * heads * key_dim * value_dim

    def prefill(T: int) -> float:
        chunk = min(CHUNK, T)
        scores = (chunk - 1.0) * heads * key_dim if channel_decay else 2.0 * chunk * groups * key_dim
        return scores + 2.0 * chunk * heads * value_dim + read_write

    return Cost.work(prefill=prefill, decode=lambda _: read_write)


def taylor_features_count(dim: int) -> int:
    """Features of a query or key of width F: 1, F of first and F(F + 1)/2 of second order."""
    return 1 + dim + dim * (dim + 1) // 2


def taylor_linear_attention(
    q: Tensor,  # B T H F
    k: Tensor,  # B T H F
    v: Tensor,  # B T H V
    *,
    initial_state: Tensor | None = None,  # B H K V+1
) -> tuple[Tensor, Tensor]:
    """y_t = Σ_{s≤t} p_ts v_s / Σ_{s≤t} p_ts,  p = 1 + x + x²/2 for x = q·k / √F: softmax to second order.

    p_ts = φ(q_t)·φ(k_s) with K = 1 + F + F(F + 1)/2 features: 1, x_i / F^¼, and x_i x_j / √F for i ≤ j, over √2
    where i = j, in the order of `torch.triu_indices`. A weight is 1/2 at least: no ε is needed.
    Source: Based (arXiv 2402.18668), section 4.

    Returns:
        y: B T H V in the dtype of `v`; final state: B H K V+1 in float32 or better, Σ φ(k) [v, 1]ᵀ.
    """
    return dispatch("taylor_linear_attention", q, k, v, initial_state)


def taylor_linear_attention_cost(heads: int, dim: int, value_dim: int) -> Cost:
    """As linear attention over the features, with a column of the state more for their sum."""
    return gated_linear_attention_cost(heads, heads, taylor_features_count(dim), value_dim + 1)

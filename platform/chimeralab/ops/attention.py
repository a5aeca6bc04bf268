"""Softmax attention."""

from __future__ import annotations

from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import dispatch


def attention(
    q: Tensor,  # B T H K
    k: Tensor,  # B S G K
    v: Tensor,  # B S G V
    *,
    causal: bool = True,
    window: int | None = None,
    sinks: Tensor | None = None,  # H
    scale: float | None = None,
    q_offset: int | Tensor = 0,
) -> Tensor:
    """Softmax attention. Query t stands at position `q_offset + t`, key s at position s.

    Args:
        causal: a query sees keys at its own position and before.
        window: a query sees that many keys, its own position included; needs `causal`.
        sinks: one logit a head that takes part in the softmax and has no value.
        scale: multiplies the scores; default 1/√K.
        q_offset: position of the first query; a 0-dim tensor when it must not leave the device.

    Returns:
        B T H V, in the dtype of `q`.
    """
    return dispatch("attention", q, k, v, causal, window, sinks, scale, q_offset)


def visible_pairs(T: int, window: int | None = None) -> int:
    """(query, key) pairs that causal attention over T tokens looks at."""
    w = T if window is None else min(window, T)
    return w * (w + 1) // 2 + (T - w) * w


def attention_cost(heads: int, key_dim: int, value_dim: int, window: int | None = None) -> Cost:
    """2(K + V) FLOPs a head for each visible pair."""
    per_pair = 2.0 * heads * (key_dim + value_dim)
    return Cost.work(
        prefill=lambda T: per_pair * visible_pairs(T, window) / T,
        decode=lambda L: per_pair * (L if window is None else min(L, window)),
    )

"""Scores within a chunk when each key channel has its own decay, without a positive exponent.

    A_ts = Σ_k q_tk k_sk exp(Σ_{s<r≤t} g_rk)          s ≤ t

A chunk is halved again and again. A pair (t, s) is taken where it first falls into different halves, through
the boundary between them: the query has decayed since the boundary, the key up to it, both by factors of at
most 1. Going up from single tokens, each level's factors are those below times the decay of one half: the
only exponentials are exp(g), and no sum of decays is ever subtracted from another.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decayed_scores(q: Tensor, k: Tensor, g: Tensor, bonus: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """
    Args:
        q, k, g: … C K with C a power of two; g ≤ 0.
        bonus: broadcastable to q. With it a query's decay ends before its own token, whose weight is `bonus`.

    Returns:
        A: … C C; queries decayed from the chunk's start: … C K; keys decayed to its end: … C K.
    """
    C = q.shape[-2]
    decay = g.exp()
    own = q * k if bonus is None else q * bonus * k
    scores = own.sum(-1)[..., None, None]  # … C 1 1, blocks of one token
    queries = (q * decay if bonus is None else q).unsqueeze(-2)  # … C 1 K
    keys, kept = k.unsqueeze(-2), decay.unsqueeze(-2)
    while queries.shape[-3] > 1:
        (q1, q2), (k1, k2), (a1, a2), (w1, w2) = (_halves(x) for x in (queries, keys, scores, kept))
        across = q2 @ k1.mT
        scores = torch.cat([torch.cat([a1, torch.zeros_like(across)], -1), torch.cat([across, a2], -1)], -2)
        queries = torch.cat([q1, q2 * w1], -2)
        keys = torch.cat([k1 * w2, k2], -2)
        kept = w1 * w2
    assert scores.shape[-1] == C
    return scores.squeeze(-3), queries.squeeze(-3), keys.squeeze(-3)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks 0, 2, 4 … and blocks 1, 3, 5 …"""
    first, second = x.unflatten(-3, (-1, 2)).unbind(-3)
    return first, second

"""The delta rule in chunks: a triangular system in each, and one scan over the states between them.

What a token writes depends on what the state holds, and so on what the tokens before it in its chunk wrote. With
G_t the sum of log decays up to t within a chunk, L_ts = exp(G_t − G_s), S the state before the chunk and w_t what
token t writes under its key,

    w_t = β_t (v_t − exp(G_t) Sᵀk_t − Σ_{s<t} (k_t L_ts k_s) w_s)            the rows of (I + A) w = F + R S
    y_t = exp(G_t) Sᵀq_t + Σ_{s≤t} (q_t L_ts k_s) w_s
    S'  = exp(G_C) S + Σ_s exp(G_C − G_s) k_s w_sᵀ

(I + A)⁻¹ F and (I + A)⁻¹ R are solved for all chunks at once (the WY form of DeltaNet, arXiv 2406.06484, section 3);
what is left for the scan is one product to read the state and one to write it. With a and b, w_t is instead what
a_t reads from the state before token t, b stands for k above, and β k vᵀ is written besides.

Only exponents ≤ 0 are taken: by a matrix L for a decay by head, by `decayed_scores` for a decay by channel.

Letters: R = H / G heads a group, N chunks, C tokens a chunk.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.checks import check_pair
from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import FLOOR, full_precision, wide
from chimeralab_kernels.torch_tier.decayed_scores import decayed_scores


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
    check_pair("delta_rule", "a", a, "b", b)
    dtype = wide(v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def recurrence(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor | None,
        g: Tensor | None,
        a: Tensor | None,
        b: Tensor | None,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, V = v.shape
        state = q.new_zeros(B, H, q.shape[-1], V, dtype=dtype) if state is None else state.to(dtype)
        if T == 0:
            return v, state
        beta = v.new_ones(1, T, 1) if beta is None else beta
        g = v.new_zeros(1, T, 1) if g is None else g
        g = g.unsqueeze(-1) if g.dim() == 3 else g
        q, k, values, beta, g = (x.to(dtype) for x in (q, k, v, beta.unsqueeze(-1), g))
        q, R = q * scale, H // q.shape[2]
        if T > 1 and a is None and g.shape[-1] == 1:  # heads of a group share their scores
            y, state = _scan(_by_head(q, k, values, beta, g), state)
            return y[:, :T].to(v.dtype), state
        q, k = _spread(q, R, 2), _spread(k, R, 2)
        if T == 1:
            y, state = _step(q, k, values, beta, g, a, b, state)
        elif a is None or b is None:
            y, state = _scan(_by_channel(q, k, values, beta, g), state)
        else:
            y, state = _scan(_general(q, k, values * beta, g, a.to(dtype), b.to(dtype)), state)
        return y[:, :T].to(v.dtype), state

    with full_precision(v):
        if cu_seqlens is not None:
            return each_sequence(recurrence, cu_seqlens, initial_state, q, k, v, beta, log_decay, a, b)
        return recurrence(q, k, v, beta, log_decay, a, b, initial_state)


def _step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, a: Tensor | None, b: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    q, k, v, beta, g = (x.transpose(1, 2) for x in (q, k, v, beta, g))  # B H 1 .
    faded = g.exp().mT * state
    if a is None or b is None:
        state = faded + k.mT @ (beta * (v - k @ faded))
    else:
        a, b = (x.to(state.dtype).transpose(1, 2) for x in (a, b))
        state = faded + b.mT @ (a @ state) + k.mT @ (beta * v)
    return (q @ state).transpose(1, 2), state


class _Chunks(NamedTuple):
    """What the scan needs of each chunk: w = fixed + reads S, y = out + queries S + scores w, S' = decay S + keysᵀ w +
    added."""

    fixed: Tensor  # B H N C V
    reads: Tensor  # B H N C K
    scores: Tensor  # B H N C C
    queries: Tensor  # B H N C K
    keys: Tensor  # B H N C K
    decay: Tensor  # B H N K 1, or ones
    out: Tensor | None = None  # B H N C V
    added: Tensor | None = None  # B H N K V


def _scan(chunks: _Chunks, state: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs B N·C H V and the last state. Each chunk's transition is a matrix: it takes a loop over chunks."""
    before, written = [], []
    added = [None] * chunks.fixed.shape[2] if chunks.added is None else chunks.added.unbind(2)
    steps = (chunks.fixed, chunks.reads, chunks.keys.mT, chunks.decay.expand(-1, -1, chunks.fixed.shape[2], -1, -1))
    for fixed, reads, keys, decay, more in zip(*(x.unbind(2) for x in steps), added, strict=True):
        before.append(state)
        w = fixed + reads @ state
        written.append(w)
        state = torch.addcmul(keys @ w, decay, state)
        state = state if more is None else state + more
    y = chunks.queries @ torch.stack(before, 2) + chunks.scores @ torch.stack(written, 2)
    y = y if chunks.out is None else y + chunks.out
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2), state


def _by_head(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> _Chunks:
    """One decay a token and head; beta and g may have 1 in place of B and H."""
    T, R = v.shape[1], v.shape[2] // k.shape[2]
    C = min(ops.CHUNK, T)
    q, k, v, beta, g = (_chunks(x, C) for x in (q, k, v, beta, g.clamp(min=FLOOR)))
    G = g.cumsum(-2)  # B H N C 1
    future = torch.ones(C, C, dtype=torch.bool, device=v.device).triu(1)
    between = (G - G.mT).masked_fill(future, -torch.inf).exp()
    scores, overlaps = (_spread(x @ k.mT, R, 1) * between for x in (q, k))
    queries, keys = _spread(q, R, 1), _spread(k, R, 1)
    fixed, reads = _solve(overlaps * beta, v * beta, keys * (-beta * G.exp()))
    to_end = keys * (G[..., -1:, :] - G).exp()
    return _Chunks(fixed, reads, scores, queries * G.exp(), to_end, G[..., -1:, :].exp())


def _by_channel(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> _Chunks:
    """A decay for each key channel; q and k have a head for each of v."""
    C = _halving_chunk(v.shape[1])
    q, k, v, beta, g = (_chunks(x, C) for x in (q, k, v, beta, g))
    scores, from_start, to_end = decayed_scores(torch.stack([q, k]), k.unsqueeze(0), g.unsqueeze(0), None)
    fixed, reads = _solve(scores[1] * beta, v * beta, -beta * from_start[1])
    return _Chunks(fixed, reads, scores[0], from_start[0], to_end[0], g.sum(-2).exp().unsqueeze(-1))


def _general(q: Tensor, k: Tensor, v: Tensor, g: Tensor, a: Tensor, b: Tensor) -> _Chunks:
    """A transition diag(exp g) + b aᵀ; v comes multiplied by β."""
    C = _halving_chunk(v.shape[1])
    q, k, v, g, a, b = (_chunks(x, C) for x in (q, k, v, g.expand(*g.shape[:3], q.shape[-1]), a, b))
    columns, g_once = torch.stack([k, b]), g.unsqueeze(0)
    # Queries read the state after their token; a reads it before, and nothing of its own token.
    (q_k, q_b), queries, (k_end, b_end) = decayed_scores(q.unsqueeze(0), columns, g_once, None)
    (a_k, a_b), reads, _ = decayed_scores(a.unsqueeze(0), columns, g_once, torch.zeros_like(g[..., :1, :]))
    fixed, reads = _solve(-a_b, a_k @ v, reads[0])
    decay = g.sum(-2).exp().unsqueeze(-1)
    return _Chunks(fixed, reads, q_b, queries[0], b_end, decay, q_k @ v, k_end.mT @ v)


def _solve(A: Tensor, fixed: Tensor, reads: Tensor) -> tuple[Tensor, Tensor]:
    """(I + A)⁻¹ of both; only what stands below the diagonal of A counts."""
    both = torch.linalg.solve_triangular(A, torch.cat([fixed, reads], -1), upper=False, unitriangular=True)
    return both.split((fixed.shape[-1], reads.shape[-1]), -1)


def _halving_chunk(T: int) -> int:
    return min(ops.CHUNK, 1 << (T - 1).bit_length())


def _spread(x: Tensor, R: int, dim: int) -> Tensor:
    """Groups to heads."""
    return x.repeat_interleave(R, dim) if R > 1 else x


def _chunks(x: Tensor, C: int) -> Tensor:
    """B T H X to B H N C X; the last chunk is filled with zeros, which leave the state as it is."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % C))
    return x.unflatten(1, (-1, C)).permute(0, 3, 1, 2, 4).contiguous()


@register_flop_formula(torch.ops.aten.linalg_solve_triangular)
def _solve_flops(A: Any, B: Any, **_: Any) -> int:
    return math.prod(B) * B[-2]

"""Gated linear attention in chunks: matrix products within a chunk, one scan over the states between chunks.

With G_t the sum of log decays up to t within a chunk, S the state before it, L the decay between two tokens,

    y_t   = exp(G_t) q_t S + Σ_{s≤t} (q_t L_{ts} k_s) v_s
    S'    = exp(G_C) S + Σ_s exp(G_C − G_s) k_s v_sᵀ

Only exponents ≤ 0 are taken. How L enters the scores is what differs: a matrix for a decay by head (Mamba-2's
SSD, arXiv 2405.21060), `decayed_scores` for a decay by channel. A bonus makes the output read the state
before the token: the decay up to t − 1, and u in place of L_{tt}.

Letters: R = H / G heads a group, N chunks, C tokens a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels.packing import each_sequence
from chimeralab_kernels.precision import FLOOR, wide
from chimeralab_kernels.torch_tier.chunk_states import chunk_states
from chimeralab_kernels.torch_tier.decayed_scores import decayed_scores


def gated_linear_attention(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    log_decay: Tensor | None = None,  # H | B T H | B T H K
    bonus: Tensor | None = None,  # H K
    scale: float | None = None,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if log_decay is not None and log_decay.dim() == 1:
        log_decay = log_decay.expand(1, v.shape[1], -1)

    def recurrence(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        B, T, H, V = v.shape
        dtype = wide(v)
        state = q.new_zeros(B, H, q.shape[-1], V, dtype=dtype) if state is None else state.to(dtype)
        if g is None:
            g = q.new_zeros(1, T, 1, dtype=dtype)
        operands = [q.to(dtype) * scale, *(x.to(dtype) for x in (k, v, g))]
        u = None if bonus is None else bonus.to(dtype)
        if T == 0:
            return v, state
        if T == 1:
            y, state = _step(*operands, u, state)
        elif g.dim() == 4:
            y, state = _by_channel(*operands, u, state)
        else:
            y, state = _by_head(*operands, u, state)
        return y.to(v.dtype), state

    if cu_seqlens is not None:
        return each_sequence(recurrence, cu_seqlens, initial_state, q, k, v, log_decay)
    return recurrence(q, k, v, log_decay, initial_state)


def _step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    R = v.shape[2] // q.shape[2]
    q, k = (x.transpose(1, 2).repeat_interleave(R, 1) for x in (q, k))  # B H 1 K
    new = k.mT @ v.transpose(1, 2)  # B H K V
    decay = g[:, 0].exp().unsqueeze(-1) if g.dim() == 4 else g[:, 0].exp()[..., None, None]
    after = decay * state + new
    read = after if u is None else state + u.unsqueeze(-1) * new
    return (q @ read).transpose(1, 2), after


def _by_head(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """One decay a token and head; g may have 1 in place of B and H."""
    T, G, R = v.shape[1], q.shape[2], v.shape[2] // q.shape[2]
    C = min(ops.CHUNK, T)
    q, k = _chunks(q, C, G), _chunks(k, C, G)  # B G 1 N C K
    v = _chunks(v, C, G)  # B G R N C V
    g = _chunks(g.clamp(min=FLOOR).unsqueeze(-1), C, min(G, g.shape[2])).squeeze(-1)  # B G R N C, or ones
    G_s = g.cumsum(-1)
    G_t = G_s if u is None else G_s - g
    total = G_s[..., -1:]
    between = (G_t.unsqueeze(-1) - G_s.unsqueeze(-2)).masked_fill(_future(C, u is not None, q.device), -torch.inf)
    scores = (q @ k.mT) * between.exp()
    if u is not None:
        own = (q * u.view(1, G, R, 1, 1, -1) * k).sum(-1)
        scores = scores + torch.diag_embed(own)
    keys, values = k.squeeze(2), v * (total - G_s).exp().unsqueeze(-1)
    written = torch.einsum("bgnck,bgrncv->bgrnkv", keys, values)
    before, state = chunk_states(written, total.exp().unsqueeze(-1), _by_group(state, G))
    read = torch.einsum("bgnck,bgrnkv->bgrncv", q.squeeze(2), before) * G_t.exp().unsqueeze(-1)
    return _tokens(scores @ v + read, T), state.flatten(1, 2)


def _by_channel(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """A decay for each key channel; queries and keys are spread over the heads of their group."""
    T, H = v.shape[1:3]
    R = H // q.shape[2]
    C = min(ops.CHUNK, 1 << (T - 1).bit_length())  # a power of two
    q, k, v, g = (_chunks(x, C, H).squeeze(2) for x in (_spread(q, R), _spread(k, R), v, g))  # B H N C .
    own = None if u is None else u.view(1, H, 1, 1, -1)
    scores, from_start, to_end = decayed_scores(q, k, g, own)
    written = to_end.mT @ v
    before, state = chunk_states(written.unsqueeze(2), g.sum(-2).exp().unsqueeze(-1).unsqueeze(2), state.unsqueeze(2))
    y = scores @ v + from_start @ before.squeeze(2)
    return _tokens(y.unsqueeze(2), T), state.squeeze(2)


def _spread(x: Tensor, R: int) -> Tensor:
    return x.repeat_interleave(R, 2) if R > 1 else x


def _chunks(x: Tensor, C: int, G: int) -> Tensor:
    """B T H X to B G H/G N C X; the last chunk is filled with zeros, which leave the state as it is."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % C))
    return x.unflatten(1, (-1, C)).unflatten(3, (G, -1)).permute(0, 3, 4, 1, 2, 5).contiguous()


def _tokens(y: Tensor, T: int) -> Tensor:
    """B G R N C V to B T H V."""
    return y.permute(0, 3, 4, 1, 2, 5).flatten(3, 4).flatten(1, 2)[:, :T]


def _by_group(state: Tensor, G: int) -> Tensor:
    return state.unflatten(1, (G, -1))


def _future(C: int, own_too: bool, device: torch.device) -> Tensor:
    """C C, true where a query must not read a key."""
    return torch.ones(C, C, dtype=torch.bool, device=device).triu(0 if own_too else 1)

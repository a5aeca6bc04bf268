"""The delta rule: a matrix state a head that each token corrects instead of adding to."""

from __future__ import annotations

from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import CHUNK, dispatch


def delta_rule(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    beta: Tensor | None = None,  # B T H
    log_decay: Tensor | None = None,  # B T H | B T H K
    a: Tensor | None = None,  # B T H K
    b: Tensor | None = None,  # B T H K
    scale: float | None = None,
    *,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The state fades, then what it holds under the key moves by β towards the value:

        S' = diag(exp g_t) S_{t-1},   S_t = S' + β_t k_t (v_t − S'ᵀ k_t)ᵀ,   y_t = scale · S_tᵀ q_t

    which is S_t = (I − β_t k_t k_tᵀ) diag(exp g_t) S_{t-1} + β_t k_t v_tᵀ. The decay g is absent (1), a scalar for
    each token and head, or a vector over K. With `a` and `b`, which come together, the transition is a diagonal plus
    any matrix of rank one, and `a` reads the state before it fades:

        S_t = diag(exp g_t) S_{t-1} + b_t (S_{t-1}ᵀ a_t)ᵀ + β_t k_t v_tᵀ,   y_t = scale · S_tᵀ q_t

    Keys are used as they are: a transition that does not grow needs |k_t|² β_t ≤ 2 of the caller. Head h uses group
    h // (H / G) of q and k.
    Source: DeltaNet (arXiv 2406.06484); scalar decay, Gated DeltaNet (arXiv 2412.06464); decay by channel, Kimi
    Linear (arXiv 2510.26692); a and b, RWKV-7 (arXiv 2503.14456).

    Args:
        beta: absent is 1.
        scale: multiplies the output; default 1/√K.

    Returns:
        y: B T H V in the dtype of `v`; final state: B H K V in float32 or better.

    Raises:
        KernelError: one of `a` and `b` without the other.
    """
    return dispatch("delta_rule", q, k, v, beta, log_decay, a, b, scale, initial_state, cu_seqlens)


def delta_rule_cost(
    heads: int, groups: int, key_dim: int, value_dim: int, *, channel_decay: bool = False, general: bool = False
) -> Cost:
    """Chunked, with chunks of Q: for each head the scores of q and of k against k (2QK each; a group's own without a
    decay by channel), a triangular system for what is written (Q(K + V)), the output within a chunk 2QV, and 6KV to
    read the state twice and write it.

    With a decay by channel only pairs of different tokens take a product, (Q − 1)K. In the `general` form, with a and
    b, q and a each meet k and b, values take two more products 2QV within a chunk, and writing them 2KV.
    One token alone: 6KV, `general` 8KV.
    """
    state = heads * key_dim * value_dim

    def prefill(T: int) -> float:
        if T == 1:
            return decode(1)
        chunk = min(CHUNK, T)
        if channel_decay or general:
            chunk = min(CHUNK, 1 << (T - 1).bit_length())  # chunks are halved
            scores = (4.0 if general else 2.0) * (chunk - 1) * heads * key_dim
        else:
            scores = 4.0 * chunk * groups * key_dim
        system = chunk * heads * (key_dim + value_dim)
        within = (6.0 if general else 2.0) * chunk * heads * value_dim
        padded = -(-T // chunk) * chunk
        return (scores + system + within + (8.0 if general else 6.0) * state) * padded / T

    def decode(_: int) -> float:
        return (8.0 if general else 6.0) * state

    return Cost.work(prefill=prefill, decode=decode)

"""RWKV-4's quotient of two linear recurrences."""

from __future__ import annotations

import torch
from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import dispatch


def wkv4(
    k: Tensor,  # B T D
    v: Tensor,  # B T D
    decay: Tensor,  # D, natural logarithm
    bonus: Tensor,  # D
    *,
    initial_state: Tensor | None = None,  # B 3 D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y_t = (Σ_{s<t} e^{(t-1-s)w + k_s} v_s + e^{u + k_t} v_t) / (Σ_{s<t} e^{(t-1-s)w + k_s} + e^{u + k_t}).

    w is `decay`, u `bonus`. Both sums are kept over e^m, where m is the largest exponent in them, so that keys
    of any size neither overflow nor vanish. No gradient runs through m: it cancels in y.
    Source: RWKV (arXiv 2305.13048), equation 16 and appendix D; without decay and bonus AFT-simple (arXiv 2105.14103).

    Returns:
        y: B T D in the dtype of `v`; final state: numerator, denominator and m, B 3 D in float32 or better.
    """
    return dispatch("wkv4", k, v, decay, bonus, initial_state, cu_seqlens)


def wkv4_cost(width: int) -> Cost:
    """A multiply and an add a channel and token for each of two sums."""
    flops = 4.0 * width
    return Cost.work(prefill=lambda _: flops, decode=lambda _: flops)


def wkv4_state(
    batch: int, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The state before the first token, B 3 D: sums of nothing, over an exponential that leaves nothing of them."""
    state = torch.zeros(batch, 3, width, device=device, dtype=torch.promote_types(dtype, torch.float32))
    state[:, 2] = -1e38
    return state

"""Softmax attention over the neighbours on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.ops.table import dispatch


def neighborhood_attention(
    q: Tensor,  # B N H K
    k: Tensor,  # B N G K
    v: Tensor,  # B N G V
    *,
    grid: Sequence[int],
    window: Sequence[int],
    scale: float | None = None,
) -> Tensor:
    """Attention of tokens on a grid to those around them. Token n stands at the n-th place of `grid`, last axis first.

    Along each axis a token at p of n sees `window` places from clamp(p − window // 2, 0, n − window) on: at the
    borders the window moves inwards and stays full; one larger than the axis is the axis.

    Args:
        grid: length of each axis; their product is N.
        window: places that a token sees along each axis, its own included.
        scale: multiplies the scores; default 1/√K.

    Returns:
        B N H V, in the dtype of `q`.

    Source: Neighborhood Attention Transformer (arXiv 2204.07143), section 3.1.
    """
    return dispatch("neighborhood_attention", q, k, v, tuple(grid), tuple(window), scale)


def neighborhood_attention_cost(
    heads: int, key_dim: int, value_dim: int, window: Sequence[int], across: Sequence[int] = ()
) -> Cost:
    """2(K + V) FLOPs a head for each neighbour, per token, on the grid of T tokens whose axes after the first are
    `across`; a first axis that they do not fill is as long as it takes, and the whole grid is worked on.

    There is no step: such attention sees a sequence whole.
    """
    per_pair, slice_size = 2.0 * heads * (key_dim + value_dim), math.prod(across)

    def flops(T: int) -> float:
        grid = (-(-T // slice_size), *across)
        return per_pair * math.prod(grid) / T * math.prod(map(min, grid, window))

    return Cost.work(flops, flops)

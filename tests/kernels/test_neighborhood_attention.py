"""Attention over neighbours on a grid: who sees whom, the tiers against dense attention with a mask, refusals."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from agreement import Inputs, assert_agree, outputs_and_gradients
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from chimeralab import KernelError, ops
from chimeralab_kernels import reference, torch_tier

KERNELS = {
    tier.__name__.rsplit(".", 1)[-1]: kernel.function
    for tier in (reference, torch_tier)
    for kernel in tier.kernels()
    if kernel.op == "neighborhood_attention"
}
# Tiles that fit and that do not, windows even and odd, as wide as the axis, wider, and of a single place.
GRIDS = [
    ((1,), (5,)),
    ((9,), (1,)),
    ((9,), (4,)),
    ((150,), (7,)),
    ((200,), (70,)),
    ((6, 5), (3, 3)),
    ((19, 21), (5, 4)),
    ((4, 9), (7, 2)),
    ((3, 9, 10), (3, 1, 5)),
]


def mask(grid: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """N N: the `window` nearest along each axis, by sorting distances; of two as near, the earlier counts as nearer
    where the window is even."""
    seen = torch.ones(1, 1, dtype=torch.bool)
    for n, w in zip(grid, window, strict=True):
        p = torch.arange(n)
        distance = (p - p[:, None]).abs() + 0.5 * (p > p[:, None])
        nearest = distance.argsort(-1)[:, :w]
        seen = torch.kron(seen, torch.zeros(n, n).scatter_(1, nearest, 1.0).bool())
    return seen


def inputs(N: int) -> Inputs:
    torch.manual_seed(0)
    shapes = {"q": (2, N, 4, 6), "k": (2, N, 2, 6), "v": (2, N, 2, 5)}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize(("grid", "window"), GRIDS, ids=str)
@pytest.mark.parametrize("tier", KERNELS)
def test_it_is_dense_attention_with_a_mask(tier: str, grid: tuple[int, ...], window: tuple[int, ...]) -> None:
    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, mask(grid, window), scale=0.7, enable_gqa=True).transpose(1, 2)

    given = inputs(math.prod(grid))
    actual = outputs_and_gradients(partial(KERNELS[tier], grid=grid, window=window, scale=0.7), given)
    assert_agree(actual, outputs_and_gradients(dense, given), 1e-12)


@pytest.mark.parametrize("tier", KERNELS)
def test_a_grid_that_does_not_hold_the_tokens_is_refused(tier: str) -> None:
    x = inputs(12)
    with pytest.raises(KernelError, match=r"a grid of \(3, 5\) holds 15 tokens, not 12"):
        KERNELS[tier](*x.values(), (3, 5), (3, 3))
    with pytest.raises(KernelError, match=r"a window of \(3,\) does not fit a grid of \(3, 4\)"):
        KERNELS[tier](*x.values(), (3, 4), (3,))
    with pytest.raises(KernelError, match=r"a window of \(3, 0\) does not fit"):
        KERNELS[tier](*x.values(), (3, 4), (3, 0))


def test_tiles_are_a_sound_operator() -> None:
    from chimeralab_kernels.torch_tier.neighborhood_attention import tiled_attention

    x = [value.requires_grad_() for value in inputs(12).values()]
    torch.library.opcheck(tiled_attention, (*x, [3, 4], [3, 2], 0.5))


@pytest.mark.parametrize(
    ("grid", "window"), [((64,), (7,)), ((8, 8), (3, 5)), ((5,), (7,)), ((2, 3, 4), (5, 2, 6))], ids=str
)
def test_cost_is_what_is_counted(grid: tuple[int, ...], window: tuple[int, ...]) -> None:
    x = inputs(math.prod(grid))
    with ops.flop_counter() as counter:
        ops.neighborhood_attention(*x.values(), grid=grid, window=window)
    cost = ops.neighborhood_attention_cost(4, 6, 5, window, grid[1:])
    N = math.prod(grid)
    assert counter.get_total_flops() == 2 * N * cost.prefill_flops(N)

"""Softmax to second order: the tiers against the T × T matrix of its weights."""

from __future__ import annotations

import math

import pytest
import torch
from agreement import Inputs, assert_agree, error, outputs_and_gradients
from torch import Tensor

from chimeralab_kernels.reference.taylor_linear_attention import taylor_linear_attention as reference
from chimeralab_kernels.torch_tier.taylor_linear_attention import taylor_linear_attention

TIERS = pytest.mark.parametrize("tier", [reference, taylor_linear_attention], ids=["reference", "torch"])


def inputs(T: int, *, F: int = 3, V: int = 5, state: bool = False) -> Inputs:
    draws = torch.Generator().manual_seed(T)
    shapes = {"q": (2, T, 2, F), "k": (2, T, 2, F), "v": (2, T, 2, V)}
    found = {name: torch.randn(shape, generator=draws, dtype=torch.float64) for name, shape in shapes.items()}
    if state:
        found["initial_state"] = reference(**inputs(9, F=F, V=V))[1]  # a sum of keys, so that no weight is negative
    return found


def by_matrix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    x = torch.einsum("bthf,bshf->bhts", q, k) / math.sqrt(q.shape[-1])
    weights = (1 + x + x**2 / 2).tril()
    return torch.einsum("bhts,bshv->bthv", weights / weights.sum(-1, keepdim=True), v)


@TIERS
@pytest.mark.parametrize("T", [1, 7, 65, 130])
def test_weights_are_the_exponential_to_second_order(tier: object, T: int) -> None:
    x = inputs(T)
    actual = outputs_and_gradients(lambda **x: tier(**x)[0], x)
    alone = ("d q", "d k") if T == 1 else ()  # one token's output is its value: these are zero, but for rounding
    assert_agree(actual, outputs_and_gradients(by_matrix, x), 1e-12, alone)


@pytest.mark.parametrize("T", [1, 65])
def test_tiers_agree_from_a_state(T: int) -> None:
    x = inputs(T, state=True)
    assert_agree(outputs_and_gradients(taylor_linear_attention, x), outputs_and_gradients(reference, x), 1e-12)


@TIERS
def test_a_sequence_goes_on_from_its_state(tier: object) -> None:
    x = inputs(20)
    whole, final = tier(**x)
    _, state = tier(**{name: value[:, :12] for name, value in x.items()})
    rest, last = tier(**{name: value[:, 12:] for name, value in x.items()}, initial_state=state)
    assert error(rest, whole[:, 12:]) < 1e-13
    assert error(last, final) < 1e-13

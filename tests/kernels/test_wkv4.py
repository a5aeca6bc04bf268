"""RWKV-4's quotient: the reference against its sums written out, the torch tier against the reference."""

from __future__ import annotations

import pytest
import torch
from agreement import Inputs, assert_agree, error, outputs_and_gradients
from torch import Tensor

from chimeralab_kernels.reference.wkv4 import wkv4 as reference
from chimeralab_kernels.torch_tier.wkv4 import wkv4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def inputs(T: int, *, B: int = 2, D: int = 5, keys: float = 1.0, decay: float = 1.0, state: bool = True) -> Inputs:
    found = {"k": keys * normal(B, T, D), "v": normal(B, T, D), "decay": -decay * normal(D).abs(), "bonus": normal(D)}
    if state:
        found["initial_state"] = torch.stack([normal(B, D), normal(B, D).abs(), normal(B, D)], 1)
    return found


@pytest.mark.parametrize("state", [False, True])
def test_the_reference_is_a_quotient_of_sums(state: bool) -> None:
    x = inputs(6, state=state)
    k, v, w, u = x["k"], x["v"], x["decay"], x["bonus"]
    y, final = reference(**x)
    num, den = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
    if state:
        num, den = x["initial_state"][:, :2].unbind(1)
        num, den = (s * x["initial_state"][:, 2].exp() for s in (num, den))
    for t in range(6):
        weights = [((t - 1 - s) * w + k[:, s]).exp() for s in range(t)] + [(u + k[:, t]).exp()]
        above = sum(weight * v[:, s] for s, weight in enumerate(weights)) + (t * w).exp() * num
        below = sum(weights) + (t * w).exp() * den
        assert error(y[:, t], above / below) < 1e-13
    last = sum(((5 - s) * w + k[:, s]).exp() * v[:, s] for s in range(6)) + (6 * w).exp() * num
    assert error(final[:, 0] * final[:, 2].exp(), last) < 1e-13


@pytest.mark.parametrize("T", [1, 2, 7, 64, 130])
@pytest.mark.parametrize("state", [False, True])
def test_tiers_agree(T: int, state: bool) -> None:
    x = inputs(T, state=state)
    assert_agree(outputs_and_gradients(wkv4, x), outputs_and_gradients(reference, x), 1e-11)


@pytest.mark.parametrize("decay", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("keys", [1.0, 300.0])
def test_keys_and_decays_of_any_size_are_borne_in_float32(keys: float, decay: float) -> None:
    x = inputs(100, keys=keys, decay=decay)
    found = wkv4(**{name: t.float() for name, t in x.items()})
    expected = reference(**{name: t.float().double() for name, t in x.items()})
    assert error(found[0], expected[0]) < 1e-4
    assert error(found[1], expected[1]) < 1e-4


@pytest.mark.parametrize("tier", [reference, wkv4], ids=["reference", "torch"])
def test_it_continues_from_its_state(tier) -> None:
    x = inputs(40, state=False)
    whole, last = tier(**x)
    state, outputs = None, []
    for start, end in ((0, 17), (17, 18), (18, 40)):
        y, state = tier(x["k"][:, start:end], x["v"][:, start:end], x["decay"], x["bonus"], state)
        outputs.append(y)
    assert error(torch.cat(outputs, 1), whole) < 1e-13
    assert error(state, last) < 1e-13


def test_packed_sequences_stay_apart() -> None:
    x = inputs(30, B=1, state=False)
    x["initial_state"] = inputs(1, B=4)["initial_state"]
    x["cu_seqlens"] = torch.tensor([0, 1, 1, 18, 30], dtype=torch.int32)
    assert_agree(outputs_and_gradients(wkv4, x), outputs_and_gradients(reference, x), 1e-11)

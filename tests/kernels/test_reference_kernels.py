"""The reference tier against formulas written here on their own."""

from __future__ import annotations

import itertools

import pytest
import torch
from agreement import assert_agree, error, gla_inputs, outputs_and_gradients
from torch import Tensor

from chimeralab_kernels import reference

KERNELS = {kernel.op: kernel.function for kernel in reference.kernels()}
normal = torch.randn


@pytest.fixture(autouse=True)
def _float64() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def quadratic_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, initial_state: Tensor, bonus: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = Σ_s (Σ_k q_tk k_sk Π_{s<r≤t} decay_rk) v_s, products of decays taken one by one."""
    T, R = v.shape[1], v.shape[2] // q.shape[2]
    q, k, decay = q.repeat_interleave(R, 2), k.repeat_interleave(R, 2), log_decay.exp()
    y, K = torch.zeros_like(v), q.shape[-1]
    final = initial_state * decay.prod(1).unsqueeze(-1)
    for s in range(T):
        final = final + torch.einsum("bhk,bhv->bhkv", k[:, s] * decay[:, s + 1 :].prod(1), v[:, s])
    for t in range(T):
        last = t + 1 if bonus is None else t  # decays seen by the output at t
        rows = torch.einsum("bhk,bhkv->bhv", q[:, t] * decay[:, :last].prod(1), initial_state)
        for s in range(t + 1):
            weight = bonus if bonus is not None and s == t else decay[:, s + 1 : last].prod(1)
            rows = rows + (q[:, t] * k[:, s] * weight).sum(-1, keepdim=True) * v[:, s]
        y = torch.cat([y[:, :t], rows.unsqueeze(1), y[:, t + 1 :]], 1)
    return y / K**0.5, final


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_is_its_quadratic_form(decay: str, bonus: bool) -> None:
    inputs = gla_inputs(decay, 7, bonus=bonus)

    def quadratic(q: Tensor, v: Tensor, log_decay: Tensor | None = None, **rest: Tensor) -> tuple[Tensor, Tensor]:
        g = torch.zeros(1) if log_decay is None else log_decay
        g = {1: lambda: g.view(1, 1, -1, 1), 3: lambda: g.unsqueeze(-1), 4: lambda: g}[g.dim()]()
        return quadratic_attention(q, v=v, log_decay=g.expand(*v.shape[:3], q.shape[-1]), **rest)

    actual = outputs_and_gradients(KERNELS["gated_linear_attention"], inputs)
    assert_agree(actual, outputs_and_gradients(quadratic, inputs), 1e-12)


@pytest.mark.parametrize(
    ("causal", "window", "q_offset"), [(False, None, 0), (True, None, 0), (True, 3, 0), (True, 2, 4)]
)
@pytest.mark.parametrize("sinks", [False, True])
def test_attention_is_an_average_by_exponentials(causal: bool, window: int | None, q_offset: int, sinks: bool) -> None:
    B, T, S, H, G, K, V = 2, 5, 9, 4, 2, 3, 6
    q, k, v, sink = normal(B, T, H, K), normal(B, S, G, K), normal(B, S, G, V), normal(H) if sinks else None
    expected = torch.zeros(B, T, H, V)
    for b, t, h in itertools.product(range(B), range(T), range(H)):
        total, position = 0.0 if sink is None else sink[h].exp(), q_offset + t
        for s in range(S):
            if not causal or (s <= position and (window is None or s > position - window)):
                weight = (q[b, t, h] @ k[b, s, h // 2] / K**0.5).exp()
                total = total + weight
                expected[b, t, h] += weight * v[b, s, h // 2]
        expected[b, t, h] /= total
    actual = KERNELS["attention"](q, k, v, causal, window, sink, None, q_offset)
    assert error(actual, expected) < 1e-13


def test_short_convolution_is_torch_conv1d() -> None:
    x, weight, bias, tail = normal(2, 9, 5), normal(5, 4), normal(5), normal(2, 3, 5)
    y, new_tail = KERNELS["short_convolution"](x, weight, bias, "silu", tail)
    history = torch.cat([tail, x], 1)
    expected = torch.nn.functional.conv1d(history.mT, weight.unsqueeze(1), bias, groups=5).mT
    assert error(y, torch.nn.functional.silu(expected)) < 1e-14
    assert torch.equal(new_tail, x[:, -3:])


def test_rms_norm_is_torch_rms_norm_of_the_gated_input() -> None:
    x, weight, gate = normal(3, 4, 8), normal(8), normal(3, 4, 8)
    expected = torch.nn.functional.rms_norm(x * torch.nn.functional.silu(gate), (8,), weight, 1e-5)
    assert error(KERNELS["rms_norm"](x, weight, 1e-5, gate), expected) < 1e-14


def test_rms_norm_of_a_sum_gives_the_sum_too() -> None:
    x, other, weight = normal(3, 4, 8), normal(3, 4, 8), normal(8)
    y, total = KERNELS["add_rms_norm"](x, other, weight, 1e-5)
    assert torch.equal(total, x + other)
    assert error(y, torch.nn.functional.rms_norm(x + other, (8,), weight, 1e-5)) < 1e-14


def test_rotary_turns_pairs_as_complex_numbers() -> None:
    x, angle = normal(2, 5, 3, 8), normal(5, 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
    actual = KERNELS["rotary"](x, angle.cos(), angle.sin())
    assert error(actual, torch.cat([turned.real, turned.imag], -1)) < 1e-14


def test_grouped_linear_is_a_linear_map_for_each_group() -> None:
    x, weight = normal(7, 4), normal(3, 5, 4)
    rows = (x[:2], x[2:2], x[2:])
    expected = torch.cat([torch.nn.functional.linear(part, w) for part, w in zip(rows, weight, strict=True)])
    assert error(KERNELS["grouped_linear"](x, weight, torch.tensor([2, 2, 7], dtype=torch.int32)), expected) < 1e-14


def test_swiglu_is_silu_times_up() -> None:
    gate, up = normal(3, 8), normal(3, 8)
    assert error(KERNELS["swiglu"](gate, up), torch.nn.functional.silu(gate) * up) < 1e-14


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_linear_cross_entropy_is_torch_cross_entropy(reduction: str) -> None:
    h, weight, target = normal(6, 4), normal(9, 4), torch.tensor([0, 8, -1, 3, -1, 2])
    expected = torch.nn.functional.cross_entropy(h @ weight.T, target, reduction=reduction, ignore_index=-1)
    actual = KERNELS["linear_cross_entropy"](h, weight, target, reduction, 0.0, -1)
    assert error(actual, expected) < 1e-14


@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_gradients_are_numerical_ones(decay: str) -> None:
    inputs = gla_inputs(decay, 3, B=1, K=2, V=2, bonus=True)
    leaves = [x.requires_grad_() for x in inputs.values()]

    def positional(*values: Tensor) -> tuple[Tensor, Tensor]:
        return KERNELS["gated_linear_attention"](**dict(zip(inputs, values, strict=True)))

    assert torch.autograd.gradcheck(positional, leaves)

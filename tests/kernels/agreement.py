"""Inputs of every op, and how two kernels are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


def error(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖ in float64; undivided where `expected` is zero; infinite for NaN."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    assert actual.shape == expected.shape
    norm = expected.norm().item()
    distance = (actual - expected).norm().item() / (norm or 1.0)
    return float("inf") if math.isnan(distance) else distance


def outputs_and_gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Inputs, dtype: torch.dtype = torch.float64
) -> Inputs:
    """Outputs by position, and the gradient of a fixed random projection of them by input name.

    Its weights are numbers that every dtype has: outputs in half precision meet the same ones as those in float64.
    """
    leaves = {name: x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}
    results = function(**leaves)
    results = results if isinstance(results, tuple) else (results,)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64).bfloat16().double() for y in results]
    loss = sum((y.double().cpu() * weight).sum() for y, weight in zip(results, weights, strict=True))
    wanted = [name for name, x in leaves.items() if x.requires_grad]
    grads = torch.autograd.grad(loss, [leaves[name] for name in wanted], allow_unused=True)
    found = {f"output {i}": y for i, y in enumerate(results)}
    for name, grad in zip(wanted, grads, strict=True):
        found[f"d {name}"] = torch.zeros_like(leaves[name]) if grad is None else grad
    return found


def assert_agree(actual: Inputs, expected: Inputs, tolerance: float, skip: Sequence[str] = ()) -> None:
    assert actual.keys() == expected.keys()
    errors = {name: error(actual[name], expected[name]) for name in expected if name not in skip}
    wrong = {name: f"{e:.1e}" for name, e in errors.items() if not e < tolerance}
    assert not wrong, f"relative errors above {tolerance:.0e}: {wrong}"


def gla_inputs(
    decay: str,
    T: int,
    *,
    B: int = 2,
    G: int = 2,
    H: int = 4,
    K: int = 8,
    V: int = 6,
    strength: float = 1.0,
    bonus: bool = False,
    state: bool = True,
    seed: int = 0,
) -> Inputs:
    """Inputs of gated_linear_attention; `decay` none, head, scalar or channel, logs in [-strength, 0]."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inputs = {"q": normal(B, T, G, K), "k": normal(B, T, G, K), "v": normal(B, T, H, V)}
    shapes = {"head": (H,), "scalar": (B, T, H), "channel": (B, T, H, K)}
    if decay in shapes:
        inputs["log_decay"] = -strength * torch.rand(shapes[decay], generator=generator, dtype=torch.float64)
    if bonus:
        inputs["bonus"] = normal(H, K)
    if state:
        inputs["initial_state"] = normal(B, H, K, V)
    return inputs


def delta_inputs(
    form: str,
    T: int,
    *,
    B: int = 2,
    G: int = 2,
    H: int = 4,
    K: int = 8,
    V: int = 6,
    strength: float = 1.0,
    state: bool = True,
    seed: int = 0,
) -> Inputs:
    """Inputs of delta_rule with unit keys; `form` plain (no β), beta (0 to 2), scalar, channel or general."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def unit(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(normal(*shape), dim=-1)

    def fraction(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    inputs = {"q": normal(B, T, G, K), "k": unit(B, T, G, K), "v": normal(B, T, H, V)}
    if form != "plain":
        inputs["beta"] = 2 * fraction(B, T, H)
    shapes = {"scalar": (B, T, H), "channel": (B, T, H, K), "general": (B, T, H, K)}
    if form in shapes:
        inputs["log_decay"] = -strength * fraction(*shapes[form])
    if form == "general":
        inputs["a"] = unit(B, T, H, K)
        inputs["b"] = -inputs["a"] * fraction(B, T, H, K)
    if state:
        inputs["initial_state"] = normal(B, H, K, V)
    return inputs

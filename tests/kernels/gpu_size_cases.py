"""Tensors of more than 2³¹ elements: an index of 32 bits would reach the wrong place in them.

The ops treat batch entries apart, so that the last one alone, in float64 by the torch tier, says what it has to be.
Only its outputs are given gradients: those of shared weights are its own too. Run it on a machine with a GPU of 140 GB
and nothing else on it, each case in a process of its own (after an address outside memory a process is lost):

pytest tests/kernels/gpu_size_cases.py -k NAME
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import Inputs, error
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels import torch_tier, triton_tier

EXACT = {kernel.op: kernel.function for kernel in torch_tier.kernels()}
DEVICE, DTYPE = ("cpu", torch.float32) if triton_tier.INTERPRETED else ("cuda", torch.bfloat16)
B, T, H, K = (3, 8, 1, 16) if triton_tier.INTERPRETED else (520, 2048, 16, 128)
D = H * K
SHARED = ("weight", "bias", "A", "skip", "decay", "bonus", "kernel")  # by the batch


def normal(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=dtype)


def fraction(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.rand(shape, device=DEVICE, dtype=dtype)


def heads(count: int = B) -> Inputs:
    return {name: normal(count, T, H, K) for name in "qkv"}


def unit(x: Tensor) -> Tensor:
    return x.mul_(K**-0.5)


def delta(**more: Tensor) -> Inputs:
    inputs = heads() | {"beta": fraction(B, T, H)} | more
    unit(inputs["k"])
    return inputs


CASES: dict[str, tuple[str, Callable[[], Inputs], dict[str, Any]]] = {
    "rms_norm": ("rms_norm", lambda: {"x": normal(B, T, D), "weight": normal(D), "gate": normal(B, T, D)}, {}),
    "swiglu": ("swiglu", lambda: {"gate": normal(B, T, D), "up": normal(B, T, D)}, {}),
    "rotary": ("rotary", lambda: {"x": normal(B, T, H, K)}, {"cos": K // 2, "sin": K // 2}),
    "short_convolution": (
        "short_convolution",
        lambda: {"x": normal(B, T, D), "weight": normal(D, 4), "bias": normal(D)},
        {"activation": "silu"},
    ),
    "diagonal_scan": ("diagonal_scan", lambda: {"x": normal(B, T, D), "log_decay": fraction(B, T, D).neg_()}, {}),
    "wkv4": (
        "wkv4",
        lambda: {"k": normal(B, T, D), "v": normal(B, T, D), "decay": -fraction(D), "bonus": normal(D)},
        {},
    ),
    "selective_scan": (
        "selective_scan",
        lambda: (
            {"u": normal(B, T, D), "delta": fraction(B, T, D), "A": -16 * fraction(D, 16), "z": normal(B, T, D)}
            | {"B": normal(B, T, 16), "C": normal(B, T, 16), "skip": normal(D)}
        ),
        {},
    ),
    "long_convolution": (
        "long_convolution",
        lambda: {"x": normal(B, T, D), "kernel": normal(D, T), "skip": normal(D), "gate": normal(B, T, D)},
        {},
    ),
    "gla scalar": (
        "gated_linear_attention",
        lambda: heads() | {"log_decay": fraction(B, T, H, dtype=torch.float32).mul_(-0.1)},
        {},
    ),
    "gla channel": ("gated_linear_attention", lambda: heads() | {"log_decay": fraction(B, T, H, K).mul_(-0.1)}, {}),
    "delta scalar": ("delta_rule", lambda: delta(log_decay=fraction(B, T, H, dtype=torch.float32).mul_(-0.1)), {}),
    "delta channel": ("delta_rule", lambda: delta(log_decay=fraction(B, T, H, K).mul_(-0.1)), {}),
}


@pytest.mark.parametrize(("op", "make", "settings"), CASES.values(), ids=CASES)
def test_the_last_batch_entry_is_right(op: str, make: Callable[[], Inputs], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    inputs = {name: x.requires_grad_() for name, x in make().items()}
    others = {name: fraction(T, value) if isinstance(value, int) else value for name, value in settings.items()}
    tail = {name: (x if name in SHARED else x[-1:]).detach().double().requires_grad_() for name, x in inputs.items()}
    with torch.no_grad():
        assert triton_tier.INTERPRETED or max(x.numel() for x in inputs.values()) > 2**31

    outputs = _all(getattr(ops, op)(**inputs, **others))
    slopes = [torch.zeros_like(y) for y in outputs]
    for slope in slopes:
        slope[-1:] = normal(*slope[-1:].shape, dtype=slope.dtype)
    grads = torch.autograd.grad(outputs, list(inputs.values()), slopes)
    wide = {name: x.double() if isinstance(x, Tensor) else x for name, x in others.items()}
    expected = _all(EXACT[op](**tail, **wide))
    wanted = torch.autograd.grad(expected, list(tail.values()), [slope[-1:].double() for slope in slopes])
    found = {f"output {i}": (y[-1:], e) for i, (y, e) in enumerate(zip(outputs, expected, strict=True))}
    for name, grad, e in zip(inputs, grads, wanted, strict=True):
        found[f"d {name}"] = (grad if name in SHARED else grad[-1:], e)
    _judge({name: error(a, e) for name, (a, e) in found.items()})


def test_the_last_rows_of_a_loss_are_right() -> None:
    torch.manual_seed(0)
    rows, words, last = B * T, 40 if triton_tier.INTERPRETED else 32768, 8
    h, weight = normal(rows, D).requires_grad_(), normal(words, D).mul_(D**-0.5).requires_grad_()
    target = torch.full((rows,), -100, device=DEVICE)
    target[-last:] = torch.randint(words, (last,), device=DEVICE)
    loss = ops.linear_cross_entropy(h, weight, target)
    dh, d_weight = torch.autograd.grad(loss, (h, weight))
    few, wide = h[-last:].detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = EXACT["linear_cross_entropy"](few, wide, target[-last:])
    wanted = torch.autograd.grad(expected, (few, wide))
    found = {"loss": (loss, expected), "d h": (dh[-last:], wanted[0]), "d weight": (d_weight, wanted[1])}
    _judge({name: error(a, e) for name, (a, e) in found.items()})


def _all(y: Any) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)


def _judge(errors: dict[str, float]) -> None:
    wrong = {name: f"{e:.1e}" for name, e in errors.items() if not e < 5e-3}
    assert not wrong, f"relative errors above 5e-3: {wrong}"

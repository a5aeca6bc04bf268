"""Every op that has a Triton kernel, as calls take it, against the torch tier in float64: shapes, dtypes, strides.

Whatever tier a call takes, its numbers have to be right; where that is not Triton, the reason is told. Run it on a
machine with a GPU, in several processes since most of the time is Triton's compiler's:

pytest -n 12 tests/kernels/gpu_shape_cases.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import Inputs, assert_agree, delta_inputs, error, gla_inputs, outputs_and_gradients
from torch import Tensor

from chimeralab import Kernel, ops
from chimeralab_kernels import torch_tier, triton_tier
from chimeralab_kernels.reference import within_token as reference

EXACT = {kernel.op: kernel.function for kernel in torch_tier.kernels()}
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
TOLERANCES = {torch.bfloat16: 5e-3, torch.float16: 5e-3, torch.float32: 1e-5}
LENGTHS = (1, 7, 63, 65, 4097)
PACKED = ("short_convolution", "diagonal_scan", "selective_scan", "wkv4", "gla", "delta")
WIDTHS = (32, 96, 128, 256)  # beside the 64 of the lengths
KEPT = ("log_decay", "initial_state", "delta", "A", "decay", "bonus", "skip", "beta", "cos", "sin")
"""Inputs that models keep in float32 beside activations in half precision."""
torch.set_num_threads(1)


class Draw:
    """Random tensors in float64, alike for one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def fraction(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)


Layout = Callable[[str, Tensor], Tensor]
Case = tuple[str, Inputs, dict[str, Any]]  # op, tensors that have gradients, the other arguments


def rms_norm(T: int, D: int) -> Case:
    draw = Draw(T)
    return "rms_norm", {"x": draw.normal(2, T, D), "weight": draw.normal(D), "gate": draw.normal(2, T, D)}, {}


def rotary(T: int, D: int) -> Case:
    angles = Draw(T).fraction(T, D // 2)
    return "rotary", {"x": Draw(T).normal(2, T, 3, D)}, {"cos": angles.cos(), "sin": angles.sin()}


def swiglu(T: int, D: int) -> Case:
    return "swiglu", {"gate": Draw(T).normal(2, T, D), "up": Draw(T + 1).normal(2, T, D)}, {}


def loss(T: int, D: int) -> Case:
    target = torch.randint(1000, (2 * T,), generator=torch.Generator().manual_seed(T)).index_fill(
        0, torch.tensor(0), -100
    )
    inputs = {"h": Draw(T).normal(2 * T, D), "weight": Draw(T + 1).normal(1000, D) * D**-0.5}
    return "linear_cross_entropy", inputs, {"target": target, "z_loss": 1e-3}


def short_convolution(T: int, D: int) -> Case:
    draw = Draw(T)
    inputs = {"x": draw.normal(2, T, D), "weight": draw.normal(D, 4), "bias": draw.normal(D)}
    return "short_convolution", inputs | {"initial_state": draw.normal(2, 3, D)}, {"activation": "silu"}


def diagonal_scan(T: int, D: int) -> Case:
    draw = Draw(T)
    inputs = {"x": draw.normal(2, T, D), "log_decay": -draw.fraction(2, T, D), "initial_state": draw.normal(2, D)}
    return "diagonal_scan", inputs, {}


def selective_scan(T: int, D: int) -> Case:
    draw = Draw(T)
    inputs = {"u": draw.normal(2, T, D), "delta": draw.fraction(2, T, D), "A": -16 * draw.fraction(D, 16)}
    inputs |= {"B": draw.normal(2, T, 16), "C": draw.normal(2, T, 16), "skip": draw.normal(D)}
    return "selective_scan", inputs | {"z": draw.normal(2, T, D), "initial_state": draw.normal(2, D, 16)}, {}


def wkv4(T: int, D: int) -> Case:
    draw = Draw(T)
    inputs = {"k": draw.normal(2, T, D), "v": draw.normal(2, T, D), "decay": -draw.fraction(D), "bonus": draw.normal(D)}
    state = torch.stack([draw.normal(2, D), draw.fraction(2, D) + 0.5, draw.normal(2, D)], 1)
    return "wkv4", inputs | {"initial_state": state}, {}


def taylor(T: int, D: int) -> Case:
    draw = Draw(T)
    inputs = {"q": draw.normal(2, T, 2, 16), "k": draw.normal(2, T, 2, 16), "v": draw.normal(2, T, 2, D)}
    return "taylor_linear_attention", inputs, {}


def long_convolution(T: int, D: int) -> Case:
    draw = Draw(T)
    inputs = {"x": draw.normal(2, T, D), "kernel": draw.normal(D, T), "skip": draw.normal(D)}
    return "long_convolution", inputs | {"gate": draw.normal(2, T, D)}, {}


def gla(form: str, *, bonus: bool = False) -> Callable[[int, int], Case]:
    def case(T: int, D: int) -> Case:
        inputs = gla_inputs(form, T, G=2, H=2, K=D, V=D, strength=0.1 if form == "scalar" else 0.5, bonus=bonus)
        return "gated_linear_attention", inputs, {}

    return case


def delta(form: str) -> Callable[[int, int], Case]:
    return lambda T, D: ("delta_rule", delta_inputs(form, T, G=2, H=2, K=D, V=D, strength=0.1), {})


CASES: dict[str, Callable[[int, int], Case]] = {
    **{f.__name__: f for f in (rms_norm, rotary, swiglu, loss, short_convolution, diagonal_scan, selective_scan, wkv4)},
    **{f.__name__: f for f in (taylor, long_convolution)},
    **{f"gla {form}": gla(form) for form in ("none", "scalar", "channel")},
    "gla channel, bonus": gla("channel", bonus=True),
    **{f"delta {form}": delta(form) for form in ("plain", "beta", "scalar", "channel", "general")},
}
SHAPES = [*((T, 64) for T in LENGTHS), *((130, D) for D in WIDTHS)]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def check(case: Case, dtype: torch.dtype, layout: Layout = lambda _, x: x) -> None:
    op, inputs, others = case
    inputs = {name: _rounded(name, x, dtype).to(DEVICE) for name, x in inputs.items()}
    others = {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in others.items()}
    narrow = {name: _narrow(name, x, dtype) if isinstance(x, Tensor) else x for name, x in others.items()}

    def call(**given: Tensor) -> Any:
        return getattr(ops, op)(**{name: layout(name, _narrow(name, x, dtype)) for name, x in given.items()}, **narrow)

    taken: list[tuple[Kernel, tuple]] = []

    def note(kernel: Kernel, args: tuple) -> Any:
        taken.append((kernel, args))
        return kernel.function(*args)

    with ops.around(note):
        actual = outputs_and_gradients(call, inputs, torch.float32)
    expected = outputs_and_gradients(
        lambda **given: EXACT[op](**{name: layout(name, x) for name, x in given.items()}, **others), inputs
    )
    tolerance = TOLERANCES[dtype] * (10 if layout is expanded else 1)  # expanded: sums that cancel
    assert_agree(actual, expected, tolerance, _vanishing(op, inputs, layout))
    ((kernel, args),) = taken
    assert kernel.tier == ("torch" if _left_to_torch(op, inputs, dtype) else "triton")
    assert (ops.explain(op, *args)["triton"] is None) == (kernel.tier == "triton")


def _left_to_torch(op: str, inputs: Inputs, dtype: torch.dtype) -> bool:
    """What no kernel here takes."""
    if op == "taylor_linear_attention":
        return dtype == torch.float16
    if op == "long_convolution":
        taken = torch.float32 if triton_tier.INTERPRETED else torch.bfloat16
        return dtype != taken or inputs["x"].shape[1] <= ops.DIRECT
    if op == "delta_rule":  # by channel more than 128 keys, with a and b more than 128 values
        by_channel = "log_decay" in inputs and inputs["log_decay"].dim() == 4
        return dtype != torch.float32 and by_channel and inputs["v"].shape[-1] > 128
    return False


def _vanishing(op: str, inputs: Inputs, layout: Layout) -> tuple[str, ...]:
    """Gradients that are nothing but rounding: where all tokens are one, Taylor's attention is its value."""
    alone = op == "taylor_linear_attention" and (inputs["v"].shape[1] == 1 or layout is expanded)
    return ("d q", "d k") if alone else ()


def _narrow(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    if not x.is_floating_point():
        return x
    return x.to(torch.float32 if name in KEPT else dtype)


def _rounded(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    return _narrow(name, x, dtype).double()


@every_dtype
@pytest.mark.parametrize(("T", "D"), SHAPES)
@every_case
def test_it_agrees(case: Callable[[int, int], Case], T: int, D: int, dtype: torch.dtype) -> None:
    check(case(T, D), dtype)


def transposed(name: str, x: Tensor) -> Tensor:
    """Time or heads inside: B H T K behind B T H K, B D T behind B T D."""
    inner = -1 if x.dim() == 3 else 2
    return x if x.dim() < 3 else x.transpose(1, inner).contiguous().transpose(1, inner)


def sliced(name: str, x: Tensor) -> Tensor:
    """A part of a wider projection, that neither begins at its start nor ends at its end."""
    around = [x.new_full((*x.shape[:-1], columns), torch.nan) for columns in (3, 5)]
    return torch.cat([around[0], x, around[1]], -1)[..., 3:-5]


def expanded(name: str, x: Tensor) -> Tensor:
    """One token's numbers for all of them."""
    return x if x.dim() < 3 or name == "initial_state" else x[:, :1].expand_as(x)


LAYOUTS = [(transposed, torch.bfloat16), (transposed, torch.float32), (sliced, torch.bfloat16), (sliced, torch.float32)]
LAYOUTS += [(expanded, torch.float32)]  # half precision rounds each token's share


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS, ids=lambda x: getattr(x, "__name__", str(x)))
@every_case
def test_it_reads_any_strides(case: Callable[[int, int], Case], layout: Layout, dtype: torch.dtype) -> None:
    check(case(70, 64), dtype, layout)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", [name for name in CASES if name.split()[0] in PACKED])
def test_it_keeps_packed_sequences_apart(name: str, dtype: torch.dtype) -> None:
    op, inputs, others = CASES[name](500, 64)
    by_token = {name: x for name, x in inputs.items() if x.dim() > 2 and name not in ("initial_state", "weight")}
    inputs |= {name: x.flatten(0, 1).unsqueeze(0) for name, x in by_token.items()}
    inputs["initial_state"] = inputs["initial_state"].repeat(2, *(1,) * (inputs["initial_state"].dim() - 1))
    check((op, inputs, others | {"cu_seqlens": torch.tensor([0, 3, 3, 900, 1000])}), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("T", "D"), SHAPES)
def test_a_norm_of_a_sum_agrees(T: int, D: int, dtype: torch.dtype) -> None:
    check_norm_of_a_sum(T, D, dtype)


def check_norm_of_a_sum(T: int, D: int, dtype: torch.dtype) -> None:
    """The kernel itself: until a GPU has run this, calls there are left to the torch tier."""
    draw = Draw(T)
    inputs = {"x": draw.normal(2, T, D), "other": draw.normal(2, T, D), "weight": draw.normal(D)}
    inputs = {name: _rounded(name, x, dtype).to(DEVICE) for name, x in inputs.items()}
    (kernel,) = (kernel for kernel in triton_tier.kernels() if kernel.op == "add_rms_norm")

    def call(**given: Tensor) -> Any:
        return kernel.function(**{name: _narrow(name, x, dtype) for name, x in given.items()})

    found = outputs_and_gradients(call, inputs, torch.float32)
    assert_agree(found, outputs_and_gradients(reference.add_rms_norm, inputs), TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("B", "H", "K"), [(64, 2, 128), (3, 1, 200)])
@pytest.mark.parametrize("cell", ops.CELLS)
def test_a_step_of_a_network_agrees(cell: str, B: int, H: int, K: int, dtype: torch.dtype) -> None:
    draw, (gates, states) = Draw(K), ops.CELLS[cell]
    inputs = {"x": draw.normal(B, 1, H, len(gates), K), "weight": draw.normal(H, len(gates), K, K) * K**-0.5}
    inputs |= {"bias": draw.normal(H, len(gates), K), "initial_state": draw.fraction(B, len(states), H, K)}
    inputs = {name: _rounded(name, x, dtype).to(DEVICE) for name, x in inputs.items()}
    (kernel,) = (kernel for kernel in triton_tier.kernels() if kernel.op == "rnn_scan")
    with torch.no_grad():
        given = {name: _narrow(name, x, dtype) for name, x in inputs.items()}
        assert kernel.unsupported(given["x"], given["weight"], cell, given["bias"], given["initial_state"]) is None
        found = kernel.function(**given, cell=cell)
        expected = EXACT["rnn_scan"](**inputs, cell=cell)
    for actual, exact in zip(found, expected, strict=True):
        assert error(actual, exact) < TOLERANCES[dtype]

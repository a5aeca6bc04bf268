"""The Triton tier's long convolution against the torch tier in float64; see triton_cases.py."""

from __future__ import annotations

import pytest
import torch
from agreement import Inputs, assert_agree, error, outputs_and_gradients

from chimeralab import ops
from chimeralab_kernels import triton_tier
from chimeralab_kernels.torch_tier.long_convolution import long_convolution as exact

(KERNEL,) = (kernel for kernel in triton_tier.kernels() if kernel.op == "long_convolution")
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
DTYPE = torch.float32 if triton_tier.INTERPRETED else torch.bfloat16  # a GPU's products are of float16
LARGEST = 256 if triton_tier.INTERPRETED else 2048  # numbers of a part
torch.set_num_threads(1)


def inputs(T: int, taps: int, *, B: int = 2, D: int = 3) -> Inputs:
    draws = torch.Generator().manual_seed(T)
    shapes = {"x": (B, T, D), "kernel": (D, taps), "skip": (D,), "gate": (B, T, D)}
    return {name: torch.randn(shape, generator=draws).to(DTYPE).double() for name, shape in shapes.items()}


def check(x: Inputs) -> None:
    on_device = {name: value.to(DEVICE) for name, value in x.items()}
    actual = outputs_and_gradients(KERNEL.function, on_device, DTYPE)
    assert_agree(actual, outputs_and_gradients(exact, on_device), 1e-5 if triton_tier.INTERPRETED else 5e-3)


ONE_PART = [(17, 17), (100, 5), (256, 300), (300, 300)] + ([] if triton_tier.INTERPRETED else [(1000, 1000)])


@pytest.mark.parametrize(("T", "taps"), ONE_PART)
def test_it_agrees_in_one_part(T: int, taps: int) -> None:
    check(inputs(T, taps))


@pytest.mark.parametrize("T", [300, 1000])  # two parts and four
@pytest.mark.parametrize("bare", [False, True])
def test_it_agrees_in_several_parts(T: int, bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import long_convolution as module

    T = T * LARGEST // 256
    monkeypatch.setitem(module.LARGEST, not triton_tier.INTERPRETED, LARGEST)
    assert module.cut_call(T, DTYPE).G * LARGEST >= T
    x = inputs(T, T, B=1)
    check({"x": x["x"], "kernel": x["kernel"]} if bare else x)


@pytest.mark.parametrize("missing", ["skip", "gate"])
def test_skip_or_gate_may_be_absent(missing: str) -> None:
    check({name: value for name, value in inputs(40, 40).items() if name != missing})


def test_it_reads_strided_inputs() -> None:
    x = {name: value.to(DEVICE, DTYPE) for name, value in inputs(40, 40, D=8).items()}
    x["gate"], x["x"] = torch.cat([x["gate"], x["x"]], -1).split(
        8, -1
    )  # views of one projection, as a mixer makes them
    x["kernel"] = x["kernel"].T.contiguous().T
    plain = {name: value.contiguous() for name, value in x.items()}
    assert torch.equal(KERNEL.function(**x), KERNEL.function(**plain))


def test_numbers_of_any_size_keep_their_digits() -> None:
    x = inputs(100, 100)
    scales = {"x": 1e-6, "kernel": 1e8, "skip": 100.0, "gate": 1.0}
    check({name: (value * scales[name]).to(DTYPE).double() for name, value in x.items()})


def test_it_is_a_sound_operator() -> None:
    from chimeralab_kernels.triton_tier.long_convolution import fused_long_convolution

    x = {name: value.to(DEVICE, DTYPE).requires_grad_() for name, value in inputs(20, 20, B=1, D=1).items()}
    torch.library.opcheck(fused_long_convolution, (*x.values(), True), rtol=1e-4, atol=1e-4)


def test_dispatch_takes_it_in_one_graph_and_counts_it() -> None:
    T = 100
    x = {name: value.to(DEVICE, DTYPE) for name, value in inputs(T, 60).items()}
    ops.load()
    with ops.record() as calls:
        expected = ops.long_convolution(**x)
    assert [made.tier for made in calls] == ["triton"]
    assert calls[0].flops == int(ops.long_convolution_cost(3, 60, sequences=2).prefill_flops(T) * T)
    compiled = torch.compile(ops.long_convolution, fullgraph=True, backend="aot_eager")
    assert error(compiled(**x), expected) < 1e-6


def test_what_it_cannot_do_is_said() -> None:
    x = torch.zeros(1, ops.DIRECT, 2, device=DEVICE, dtype=DTYPE)
    assert "product with a Toeplitz matrix" in (KERNEL.unsupported(x, x[0].T) or "")
    long = torch.zeros(1, 32769, 1, device=DEVICE, dtype=DTYPE)
    assert KERNEL.unsupported(long, long[0].T) == "takes up to 32768 tokens: more parts than 16 do not compile"
    assert KERNEL.unsupported(x.double(), x[0].T) == f"takes x and gate in {DTYPE}"

"""Long convolutions: by FFT and by matrix, against the sum tap by tap."""

from __future__ import annotations

import pytest
import torch
from agreement import assert_agree, error, outputs_and_gradients
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels.reference.long_convolution import long_convolution as reference
from chimeralab_kernels.torch_tier.long_convolution import long_convolution

LENGTHS = [1, 2, ops.DIRECT, ops.DIRECT + 1, 63, 100, 257]


def inputs(T: int, taps: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(T)
    shapes = {"x": (2, T, 3), "kernel": (3, taps), "skip": (3,), "gate": (2, T, 3)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize("taps", [1, 5, 100, 300])
@pytest.mark.parametrize("T", LENGTHS)
def test_outputs_and_gradients_agree_with_the_sum_over_taps(T: int, taps: int) -> None:
    x = inputs(T, taps)
    assert_agree(outputs_and_gradients(long_convolution, x), outputs_and_gradients(reference, x), 1e-12)


def test_skip_and_gate_may_be_absent() -> None:
    x = inputs(40, 40)
    bare = {"x": x["x"], "kernel": x["kernel"]}
    assert_agree(outputs_and_gradients(long_convolution, bare), outputs_and_gradients(reference, bare), 1e-12)


@pytest.mark.parametrize("T", [ops.DIRECT, 100])
def test_bfloat16_is_transformed_in_float32(T: int) -> None:
    x = {name: value.bfloat16() for name, value in inputs(T, T).items()}
    exact = reference(**{name: value.double() for name, value in x.items()})
    y = long_convolution(**x)
    assert y.dtype == torch.bfloat16
    assert error(y, exact) < 3e-3  # the rounding of the result


def test_a_tiny_sequence_is_exactly_causal() -> None:
    x = inputs(ops.DIRECT, ops.DIRECT)
    moved = {**x, "x": x["x"].clone()}
    moved["x"][:, -1] += 1
    assert torch.equal(long_convolution(**moved)[:, :-1], long_convolution(**x)[:, :-1])


def test_transforms_have_room_and_waste_little() -> None:
    for T in range(1, 1000):
        assert 2 * T - 1 <= ops.transform_length(T, T) <= max(4, 4 / 3 * (2 * T - 1))


@pytest.mark.parametrize(("T", "taps"), [(ops.DIRECT, 9), (256, 256), (256, 64), (300, 1000)])
def test_cost_is_what_is_counted(T: int, taps: int) -> None:
    x = {name: value[:1] if name in ("x", "gate") else value for name, value in inputs(T, taps).items()}
    for device in ("cpu", "meta"):
        with ops.flop_counter() as counter:
            long_convolution(**{name: value.to(device) for name, value in x.items()})
        declared = ops.long_convolution_cost(3, taps).prefill_flops(T) * T
        assert counter.get_total_flops() == pytest.approx(declared, rel=0.02)


@pytest.mark.parametrize("T", [ops.DIRECT, 100])
def test_compiles_to_one_graph_with_its_backward(T: int) -> None:
    torch._dynamo.reset()
    ops.load()
    x = {name: value.float() for name, value in inputs(T, T).items()}
    compiled = torch.compile(ops.long_convolution, fullgraph=True, backend="aot_eager")
    actual = outputs_and_gradients(compiled, x, torch.float32)
    assert_agree(actual, outputs_and_gradients(ops.long_convolution, x, torch.float32), 1e-5)

"""The Triton tier against the reference tier in float64.

`test_triton_kernels.py` runs this file in Triton's interpreter. On a machine with a GPU, `pytest
tests/kernels/triton_cases.py` runs it on the compiled kernels.
"""

from __future__ import annotations

import pytest
import torch
from agreement import Inputs, assert_agree, error, gla_inputs, outputs_and_gradients

from chimeralab import ops
from chimeralab_kernels import reference, triton_tier

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}
TRITON = {kernel.op: kernel for kernel in triton_tier.kernels()}
GLA = "gated_linear_attention"
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
torch.set_num_threads(1)


def check(inputs: Inputs, tolerance: float = 2e-5) -> None:
    on_device = {name: x.to(DEVICE) for name, x in inputs.items()}
    actual = outputs_and_gradients(TRITON[GLA].function, on_device, torch.float32)
    assert_agree(actual, outputs_and_gradients(REFERENCE[GLA], inputs), tolerance)


@pytest.mark.parametrize("T", [1, 7, 65])
@pytest.mark.parametrize("decay", ["none", "head", "scalar"])
def test_gated_linear_attention_agrees(decay: str, T: int) -> None:
    check(gla_inputs(decay, T, B=1, G=2, H=2, K=16, V=16))


@pytest.mark.parametrize(("G", "H", "K", "V"), [(1, 2, 16, 32), (2, 4, 24, 20)])
def test_gated_linear_attention_agrees_for_groups_and_odd_head_sizes(G: int, H: int, K: int, V: int) -> None:
    check(gla_inputs("scalar", 40, B=2, G=G, H=H, K=K, V=V, state=False))


def test_gated_linear_attention_agrees_when_values_take_several_blocks() -> None:
    check(gla_inputs("scalar", 33, B=1, G=1, H=1, K=100, V=160))


@pytest.mark.parametrize("decay", ["none", "scalar"])
def test_gated_linear_attention_agrees_over_several_segments(decay: str) -> None:
    from chimeralab_kernels.triton_tier.gla_plan import plan

    inputs = gla_inputs(decay, 260, B=1, G=1, H=1, K=16, V=16, strength=0.1)
    assert plan(1, 1, 260, 16, 16, torch.float32).segments == 2
    check(inputs)


def test_gated_linear_attention_bears_strong_decay() -> None:
    check(gla_inputs("scalar", 70, B=1, G=2, H=2, K=16, V=16, strength=30.0), 1e-4)


def test_gated_linear_attention_reads_strided_inputs() -> None:
    inputs = {name: x.to(DEVICE).float() for name, x in gla_inputs("scalar", 20, B=1, K=16, V=16).items()}
    joined = torch.cat([inputs["q"].flatten(2), inputs["k"].flatten(2), inputs["v"].flatten(2)], -1)
    q, k, v = joined.split([32, 32, 64], -1)  # views of one projection, as a mixer makes them
    views = inputs | {"q": q.unflatten(-1, (2, 16)), "k": k.unflatten(-1, (2, 16)), "v": v.unflatten(-1, (4, 16))}
    for actual, expected in zip(TRITON[GLA].function(**views), TRITON[GLA].function(**inputs), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("with_everything", [False, True])
def test_scalar_gla_is_a_sound_operator(with_everything: bool) -> None:
    from chimeralab_kernels.triton_tier.gated_linear_attention import scalar_gla

    inputs = gla_inputs("scalar" if with_everything else "none", 20, B=1, H=2, K=16, V=16, state=with_everything)
    x = {name: value.to(DEVICE).float().requires_grad_() for name, value in inputs.items()}
    args = (x["q"], x["k"], x["v"], x.get("log_decay"), x.get("initial_state"), 0.25)
    torch.library.opcheck(scalar_gla, args, rtol=1e-4, atol=1e-4)


def test_dispatch_takes_the_triton_kernel_in_one_graph() -> None:
    inputs = {name: x.to(DEVICE).float() for name, x in gla_inputs("head", 20, B=1, H=2, K=16, V=16).items()}

    def call(**inputs: torch.Tensor) -> torch.Tensor:
        return ops.gated_linear_attention(**inputs)[0]

    ops.load()
    with ops.record() as calls:
        expected = call(**inputs)
    assert [made.tier for made in calls] == ["triton"]
    cost = ops.gated_linear_attention_cost(2, 2, 16, 16)
    assert calls[0].flops == int(cost.prefill_flops(20) * 20)
    assert error(torch.compile(call, fullgraph=True, backend="aot_eager")(**inputs), expected) < 1e-6


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bonus": torch.ones(4, 8)}, "has no bonus"),
        ({"log_decay": torch.zeros(2, 3, 4, 8)}, "has no decay by channel"),
        ({"q": torch.zeros(2, 3, 2, 8, dtype=torch.float64)}, "takes q, k and v of one dtype"),
    ],
)
def test_what_it_cannot_do_is_said(changed: dict, reason: str) -> None:
    inputs = {name: x.float() for name, x in gla_inputs("scalar", 3).items()} | changed
    told = TRITON[GLA].unsupported(**{name: x.to(DEVICE) for name, x in inputs.items()})
    assert told is not None
    assert reason in told

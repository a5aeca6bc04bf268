"""The Triton tier's Taylor linear attention against the reference tier in float64; see triton_cases.py."""

from __future__ import annotations

import pytest
import torch
from agreement import Inputs, assert_agree, error, outputs_and_gradients
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels import triton_tier
from chimeralab_kernels.reference.taylor_linear_attention import taylor_linear_attention as reference

(KERNEL,) = (kernel for kernel in triton_tier.kernels() if kernel.op == "taylor_linear_attention")
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
DTYPE, TOLERANCE = (torch.float32, 2e-5) if triton_tier.INTERPRETED else (torch.bfloat16, 8e-3)
"""What the kernels in chunks are given: a GPU takes float32 by features in memory."""
torch.set_num_threads(1)


def inputs(T: int, *, B: int = 1, H: int = 1, F: int = 4, V: int = 16, state: bool = False) -> Inputs:
    draws = torch.Generator().manual_seed(T)
    shapes = {"q": (B, T, H, F), "k": (B, T, H, F), "v": (B, T, H, V)}
    found = {name: torch.randn(shape, generator=draws).bfloat16().double() for name, shape in shapes.items()}
    if state:
        found["initial_state"] = reference(**inputs(9, B=B, H=H, F=F, V=V))[1]
    return found


def in_chunks(**x: Tensor) -> tuple[Tensor, Tensor]:
    from chimeralab_kernels.triton_tier import taylor_linear_attention as module

    return module.in_chunks(**x)


def check(x: Inputs, skip: tuple[str, ...] = ()) -> None:
    def call(**x: Tensor) -> tuple[Tensor, Tensor]:
        return in_chunks(**{name: value.to(DTYPE) if name in "qkv" else value for name, value in x.items()})

    actual = outputs_and_gradients(call, {name: value.to(DEVICE) for name, value in x.items()}, torch.float32)
    assert_agree(actual, outputs_and_gradients(reference, x), TOLERANCE, skip)


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("T", [1, 7, 65])
def test_it_agrees(T: int, state: bool) -> None:
    alone = T == 1 and not state  # then y = v whatever the query is, and its gradient is rounding
    B = 2 if T == 65 else 1  # whatever its length a sequence takes the interpreter a whole chunk
    check(inputs(T, B=B, H=2, state=state), skip=("d q",) if alone else ())


@pytest.mark.parametrize("state", [False, True])
def test_it_agrees_over_several_chunks(state: bool) -> None:
    from chimeralab_kernels.triton_tier.taylor_linear_attention import cut_call

    T = 300 if triton_tier.INTERPRETED else 1100
    assert cut_call(T, 16, DTYPE).chunks == 3
    check(inputs(T, state=state))


@pytest.mark.parametrize(("F", "V"), [(1, 8), (3, 5), (16, 40), (20, 16), (4, 144)])
def test_it_agrees_for_odd_sizes(F: int, V: int) -> None:
    check(inputs(140 if F == 3 else 40, F=F, V=V, state=True))


@pytest.mark.parametrize("state", [False, True])
def test_features_in_memory_give_the_same(state: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import taylor_linear_attention as module

    monkeypatch.setattr(module, "INTERPRETED", False)  # as on a GPU
    x = inputs(20, B=2, H=3, state=state)
    found = KERNEL.function(**{name: value.to(DEVICE).float() for name, value in x.items()})
    for actual, expected in zip(found, reference(**x), strict=True):
        assert error(actual, expected) < 1e-5


def test_it_reads_strided_inputs() -> None:
    x = {name: value.to(DEVICE, DTYPE) for name, value in inputs(40, H=2).items()}
    joined = torch.cat([value.flatten(2) for value in x.values()], -1)
    views = dict(zip(x, (part.unflatten(-1, (2, -1)) for part in joined.split([8, 8, 32], -1)), strict=True))
    for actual, expected in zip(in_chunks(**views), in_chunks(**x), strict=True):
        assert torch.equal(actual, expected)


def test_it_is_a_sound_operator() -> None:
    from chimeralab_kernels.triton_tier.taylor_linear_attention import fused_taylor

    q, k, v = (torch.randn(1, 5, 1, 16, device=DEVICE, dtype=DTYPE, requires_grad=True) for _ in range(3))
    moments = torch.rand(1, 1, 160, 16, device=DEVICE, requires_grad=True)
    sums = torch.rand(1, 1, 160, device=DEVICE, requires_grad=True)
    torch.library.opcheck(fused_taylor, (q, k, v, moments, sums, 3), rtol=1e-4, atol=1e-4)


def test_dispatch_takes_it_in_one_graph_and_counts_it() -> None:
    x = {name: value.to(DEVICE, DTYPE) for name, value in inputs(70, H=2).items()}

    def call(**x: torch.Tensor) -> torch.Tensor:
        return ops.taylor_linear_attention(**x)[0]

    ops.load()
    with ops.record() as calls:
        expected = call(**x)
    assert [made.tier for made in calls] == ["triton"]
    with ops.flop_counter() as counter:
        in_chunks(**x)
    assert counter.get_total_flops() == int(ops.taylor_linear_attention_cost(2, 4, 16).prefill_flops(70) * 70)
    assert error(torch.compile(call, fullgraph=True, backend="aot_eager")(**x), expected) < 1e-6


def test_what_it_cannot_do_is_said() -> None:
    q = torch.zeros(1, 3, 1, 33, device=DEVICE)
    assert KERNEL.unsupported(q, q, q) == "takes queries and keys of up to 32 channels"
    assert "float16 does not hold" in (KERNEL.unsupported(q.half(), q.half(), q.half()) or "")

"""The delta rule in the Triton tier against the reference tier in float64.

`test_triton_kernels.py` runs this file in Triton's interpreter. On a machine with a GPU, `pytest
tests/kernels/triton_delta_cases.py` runs it on the compiled kernels.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from agreement import Inputs, assert_agree, delta_inputs, error, outputs_and_gradients
from launches import launches, odd_rows

from chimeralab import KernelError, ops
from chimeralab_kernels import reference, triton_tier

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}["delta_rule"]
(KERNEL,) = (kernel for kernel in triton_tier.kernels() if kernel.op == "delta_rule")
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
FORMS = ["plain", "beta", "scalar", "channel", "general"]
every_form = pytest.mark.parametrize("form", FORMS)
torch.set_num_threads(1)


def on_device(inputs: Inputs) -> Inputs:
    return {name: x.to(DEVICE) for name, x in inputs.items()}


def check(inputs: Inputs, tolerance: float = 1e-5) -> None:
    actual = outputs_and_gradients(KERNEL.function, on_device(inputs), torch.float32)
    assert_agree(actual, outputs_and_gradients(REFERENCE, inputs), tolerance)


@pytest.mark.parametrize("T", [1, 7, 33])
@every_form
def test_it_agrees(form: str, T: int) -> None:
    check(delta_inputs(form, T, B=1, G=2, H=2, K=16, V=16))


@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_it_agrees_for_groups_and_odd_head_sizes(form: str) -> None:
    check(delta_inputs(form, 20, B=2, G=1, H=2, K=24, V=20, state=False))


@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_it_agrees_when_heads_take_several_blocks(form: str) -> None:
    check(delta_inputs(form, 20, B=1, G=1, H=1, K=100, V=72))


@pytest.mark.parametrize(("K", "V"), [(16, 32), (64, 16), (96, 128), (128, 64)])
@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_it_agrees_in_half_precision(form: str, K: int, V: int) -> None:
    dtype = torch.float32 if triton_tier.INTERPRETED else torch.bfloat16  # the interpreter's bfloat16 dot is wrong
    inputs = delta_inputs(form, 20 if triton_tier.INTERPRETED else 333, B=1, G=1, H=2, K=K, V=V, strength=0.2)
    inputs = {name: x.to(dtype).double() for name, x in inputs.items()}
    actual = outputs_and_gradients(KERNEL.function, on_device(inputs), dtype)
    assert_agree(actual, outputs_and_gradients(REFERENCE, inputs), 1e-5 if triton_tier.INTERPRETED else 8e-3)


@pytest.mark.parametrize("T", [1, 20])
@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_zeros_fill_heads_up(form: str, T: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import delta_rule

    monkeypatch.setattr(delta_rule, "filled", lambda *_, **__: (32, 16))  # as in half precision
    check(delta_inputs(form, T, B=1, G=1, H=2, K=24, V=10))


@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_it_bears_strong_and_absent_decay(form: str) -> None:
    inputs = delta_inputs(form, 40, B=1, G=1, H=1, K=16, V=16, strength=30.0)
    inputs["log_decay"][:, 10:20] = 0
    check(inputs, 2e-5)


def test_it_forgets_all_where_the_decay_is_infinite() -> None:
    inputs = delta_inputs("scalar", 20, B=1, G=1, H=1, K=16, V=16)
    inputs["log_decay"][:, 3], inputs["log_decay"][:, 7] = -1e5, -torch.inf
    check(inputs, 2e-5)


@pytest.mark.parametrize("form", ["scalar", "general"])
def test_it_agrees_in_the_chunks_and_segments_of_long_sequences(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import delta_rule

    assert delta_rule.plan(1, 1, 600, 16, 16, torch.float32).segments == 4
    assert delta_rule.plan(1, 1, 600, 16, 16, torch.bfloat16).chunk == 64
    T = 600
    if triton_tier.INTERPRETED:  # as half precision is cut; a GPU takes chunks of 16 in float32
        T = 160
        cut = dataclasses.replace(
            delta_rule.plan(1, 1, T, 16, 20, torch.float32), chunk=64, chunks=3, segments=2, chunks_a_segment=2
        )
        monkeypatch.setattr(delta_rule, "plan", lambda *_: cut)
    check(delta_inputs(form, T, B=1, G=1, H=1, K=16, V=20, strength=0.1))


def test_repeated_keys_stay_bounded() -> None:
    inputs = delta_inputs("beta", 80, B=1, G=1, H=1, K=16, V=16)
    inputs["k"] = inputs["k"][:, :1].expand(-1, 80, -1, -1).contiguous()
    inputs["beta"] = torch.full_like(inputs["beta"], 1.98)
    check(inputs, 1e-4)


@pytest.mark.parametrize("form", ["scalar", "channel"])
def test_it_reads_strided_inputs(form: str) -> None:
    inputs = {name: x.float() for name, x in on_device(delta_inputs(form, 20, B=1, G=2, H=2, K=16, V=16)).items()}
    joined = torch.cat([inputs["q"].flatten(2), inputs["k"].flatten(2), inputs["v"].flatten(2)], -1)
    q, k, v = (x.unflatten(-1, (2, 16)) for x in joined.split([32, 32, 32], -1))  # as a mixer's projection gives them
    decay = inputs["log_decay"].transpose(1, 2).contiguous().transpose(1, 2)
    views = inputs | {"q": q, "k": k, "v": v, "log_decay": decay}
    for actual, expected in zip(KERNEL.function(**views), KERNEL.function(**inputs), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_it_reads_rows_at_odd_places(form: str) -> None:
    inputs = {name: x.float() for name, x in on_device(delta_inputs(form, 20, B=1, G=2, H=2, K=16, V=16)).items()}
    odd = {name: F.pad(x, (1, 2))[..., 1:-2] for name, x in inputs.items() if x.dim() == 4 and name != "initial_state"}
    assert odd["q"].stride(2) == 19
    with launches() as made:
        y, state = KERNEL.function(**{name: x.requires_grad_() for name, x in (inputs | odd).items()})
        torch.autograd.backward((y, state), (F.pad(y, (1, 2))[..., 1:-2].detach(), state))
    assert len(made) > 5
    assert not odd_rows(made, 16)
    for actual, expected in zip((y, state), KERNEL.function(**inputs), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("form", ["channel", "general"])
def test_flat_and_steep_chunks_agree(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import delta_rule

    cut = dataclasses.replace(
        delta_rule.plan(1, 1, 150, 16, 16, torch.float32), chunk=64, chunks=3, segments=1, chunks_a_segment=3
    )
    if triton_tier.INTERPRETED:  # as half precision is cut; a GPU takes chunks of 16 in float32
        monkeypatch.setattr(delta_rule, "plan", lambda *_: cut)
    inputs = delta_inputs(form, 150, B=1, G=1, H=1, K=16, V=16)
    # One block; blocks of 16; single tokens, and the end of what was.
    inputs["log_decay"] *= torch.tensor([0.1, 4.0, 60.0]).repeat_interleave(64)[:150, None, None]
    inputs["log_decay"][:, 140, :, :8] = -torch.inf
    check(inputs, 2e-5)


@every_form
def test_it_keeps_packed_sequences_apart(form: str) -> None:
    inputs = delta_inputs(form, 60, B=1, G=1, H=2, K=16, V=16)
    offsets = [0, 5, 5, 6, 37, 60]  # the second is empty, the third a single token
    inputs["initial_state"] = torch.cat([inputs["initial_state"] * (i + 1) for i in range(len(offsets) - 1)])
    check(inputs | {"cu_seqlens": torch.tensor(offsets, dtype=torch.int32)})


def test_a_packed_sequence_of_one_token_is_no_step() -> None:
    inputs = delta_inputs("scalar", 1, B=1) | {"cu_seqlens": torch.tensor([0, 1], dtype=torch.int32)}
    check(inputs)


def test_packed_sequences_need_offsets_from_first_to_last_token() -> None:
    inputs = on_device(delta_inputs("scalar", 20, B=1)) | {"cu_seqlens": torch.tensor([0, 7, 19])}
    with pytest.raises(KernelError, match="do not cut a batch of 1 with 20 tokens"):
        KERNEL.function(**inputs)


def test_one_token_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import delta_rule

    monkeypatch.setattr(delta_rule, "scan", None)  # would fail if it were called
    inputs = {name: x.float() for name, x in on_device(delta_inputs("general", 1)).items()}
    assert error(KERNEL.function(**inputs)[0], REFERENCE(**inputs)[0]) < 1e-6


@pytest.mark.parametrize("form", ["plain", "scalar", "general"])
def test_delta_rule_is_a_sound_operator(form: str) -> None:
    from chimeralab_kernels.triton_tier.delta_rule import delta_forward

    inputs = on_device(delta_inputs(form, 20, B=1, H=2, K=16, V=16, state=form != "plain"))
    x = {name: value.float().requires_grad_() for name, value in inputs.items()}
    beta = None if form == "general" else x.get("beta")
    rest = (x.get(name) for name in ("log_decay", "a", "b", "initial_state"))
    torch.library.opcheck(delta_forward, (x["q"], x["k"], x["v"], beta, *rest, None, 0.25), rtol=1e-4, atol=1e-4)


@every_form
def test_dispatch_takes_the_triton_kernel_in_one_graph(form: str) -> None:
    inputs = {name: x.float() for name, x in on_device(delta_inputs(form, 20, B=1, H=2, K=16, V=16)).items()}

    def call(**inputs: torch.Tensor) -> torch.Tensor:
        return ops.delta_rule(**inputs)[0]

    ops.load()
    with ops.record() as calls:
        expected = call(**inputs)
    assert [made.tier for made in calls] == ["triton"]
    cost = ops.delta_rule_cost(2, 2, 16, 16, channel_decay=form == "channel", general=form == "general")
    assert calls[0].flops == int(cost.prefill_flops(20) * 20)
    assert error(torch.compile(call, fullgraph=True, backend="aot_eager")(**inputs), expected) < 1e-6


def test_a_gpu_with_less_shared_memory_takes_smaller_heads_and_single_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(T: int, K: int, architecture: str) -> str:
        monkeypatch.setattr(ops.tiles, "architecture", lambda: architecture)
        inputs = delta_inputs("scalar", T, B=1, G=1, H=1, K=K, V=K)
        return KERNEL.unsupported(**on_device({name: x.float() for name, x in inputs.items()})) or ""

    assert "more shared memory than this GPU has" in lacks(3, 136, "sm86")
    assert not lacks(3, 128, "sm86")
    assert not lacks(3, 136, "sm80")
    with torch.no_grad():
        assert not lacks(1, 136, "sm86")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"a": torch.zeros(2, 3, 4, 8)}, "takes a and b together"),
        ({"k": torch.zeros(2, 3, 2, 8, dtype=torch.float64)}, "of one dtype"),
        ({"q": torch.zeros(2, 3, 2, 300)}, "head sizes up to 256"),
    ],
)
def test_what_it_cannot_do_is_said(changed: dict, reason: str) -> None:
    inputs = {name: x.float() for name, x in delta_inputs("scalar", 3).items()} | changed
    assert reason in (KERNEL.unsupported(**on_device(inputs)) or "")

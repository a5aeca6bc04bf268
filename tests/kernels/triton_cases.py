"""The Triton tier against the reference tier in float64.

`test_triton_kernels.py` runs this file in Triton's interpreter. On a machine with a GPU, `pytest
tests/kernels/triton_cases.py` runs it on the compiled kernels.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from agreement import Inputs, assert_agree, error, gla_inputs, outputs_and_gradients
from launches import launches, odd_rows

from chimeralab import KernelError, ops
from chimeralab_kernels import reference, triton_tier

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}
TRITON = {kernel.op: kernel for kernel in triton_tier.kernels()}
GLA = "gated_linear_attention"
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
torch.set_num_threads(1)


def packed(inputs: Inputs, offsets: list[int]) -> Inputs:
    """The same with an initial state for each of the sequences that `offsets` cut out."""
    states = torch.cat([inputs["initial_state"] * (i + 1) for i in range(len(offsets) - 1)])
    return inputs | {"initial_state": states, "cu_seqlens": torch.tensor(offsets, dtype=torch.int32)}


def check(inputs: Inputs, tolerance: float = 2e-5) -> None:
    on_device = {name: x.to(DEVICE) for name, x in inputs.items()}
    actual = outputs_and_gradients(TRITON[GLA].function, on_device, torch.float32)
    assert_agree(actual, outputs_and_gradients(REFERENCE[GLA], inputs), tolerance)


@pytest.mark.parametrize("T", [1, 7, 65])
@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_agrees(decay: str, T: int) -> None:
    check(gla_inputs(decay, T, B=1, G=2, H=2, K=16, V=16))


@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_agrees_with_a_bonus(decay: str) -> None:
    check(gla_inputs(decay, 40, B=2, G=1, H=2, K=16, V=16, bonus=True))


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_takes_a_single_step(decay: str, bonus: bool) -> None:
    inputs = gla_inputs(decay, 1, B=2, G=2, H=4, K=24, V=20, bonus=bonus)
    with torch.no_grad(), ops.record() as calls:
        actual = ops.gated_linear_attention(**{name: x.to(DEVICE).float() for name, x in inputs.items()})
    assert [call.flops for call in calls] == [int(ops.gated_linear_attention_cost(4, 2, 24, 20).decode_flops(1) * 2)]
    for found, expected in zip(actual, REFERENCE[GLA](**inputs), strict=True):
        assert error(found, expected) < 1e-6


@pytest.mark.parametrize("decay", ["scalar", "channel"])
@pytest.mark.parametrize(("G", "H", "K", "V"), [(1, 2, 16, 32), (2, 4, 24, 20)])
def test_gated_linear_attention_agrees_for_groups_and_odd_head_sizes(
    decay: str, G: int, H: int, K: int, V: int
) -> None:
    check(gla_inputs(decay, 40, B=2, G=G, H=H, K=K, V=V, state=False))


@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gated_linear_attention_agrees_when_values_take_several_blocks(decay: str) -> None:
    check(gla_inputs(decay, 33, B=1, G=1, H=1, K=100, V=160))


@pytest.mark.parametrize("decay", ["none", "scalar", "channel"])
def test_gated_linear_attention_agrees_for_heads_of_several_parts(decay: str) -> None:
    check(gla_inputs(decay, 5, B=1, G=1, H=1, K=273, V=300, bonus=decay == "channel"))


@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gated_linear_attention_reads_rows_at_odd_places(decay: str) -> None:
    inputs = gla_inputs(decay, 20, B=1, G=2, H=2, K=64, V=64, strength=0.1)  # B T G K
    plain = {name: x.to(DEVICE).float() for name, x in inputs.items()}
    odd = {name: F.pad(plain[name], (1, 2))[..., 1:-2] for name in plain if name in ("q", "k", "v", "log_decay")}
    assert odd["q"].stride(2) == 67
    odd = {name: x.requires_grad_() for name, x in (plain | odd).items()}
    with launches() as made:
        y, state = TRITON[GLA].function(**odd)
        torch.autograd.backward((y, state), (F.pad(y, (1, 2))[..., 1:-2].detach(), state))
    assert len(made) > 3
    assert not odd_rows(made, 64)
    for found, expected in zip((y, state), TRITON[GLA].function(**plain), strict=True):
        assert torch.equal(found, expected)


def test_head_sizes_are_cut_into_parts_that_kernels_have() -> None:
    from chimeralab_kernels.triton_tier.gated_linear_attention import parts

    def filled(size: int, **options: int) -> list[tuple[int, int]]:
        return [(part.stop - part.start, to) for part, to in parts(size, single=False, **options)]

    assert filled(128) == [(128, 128)]
    assert filled(129) == [(128, 128), (1, 16)]
    assert filled(24) == [(24, 32)]
    assert filled(96) == [(96, 128)]
    assert filled(513) == [(256, 256), (256, 256), (1, 16)]
    assert filled(16, least=64) == [(16, 64)]
    assert parts(300, single=True) == [(slice(0, 256), 256), (slice(256, 300), 44)]


@pytest.mark.parametrize("decay", ["none", "scalar", "channel"])
def test_gated_linear_attention_keeps_packed_sequences_apart(decay: str) -> None:
    inputs = gla_inputs(decay, 60, B=1, G=1, H=2, K=16, V=16, bonus=decay == "channel")
    check(packed(inputs, [0, 5, 5, 37, 60]))  # the second is empty


def test_packed_sequences_need_offsets_from_first_to_last_token() -> None:
    inputs = packed(gla_inputs("scalar", 20, B=1, K=16, V=16), [0, 7, 19])
    with pytest.raises(KernelError, match="do not cut a batch of 1 with 20 tokens"):
        TRITON[GLA].function(**{name: x.to(DEVICE) for name, x in inputs.items()})


@pytest.mark.parametrize("decay", ["none", "scalar", "channel"])
def test_gated_linear_attention_agrees_over_several_segments(decay: str) -> None:
    from chimeralab_kernels.triton_tier.gla_plan import plan

    inputs = gla_inputs(decay, 260, B=1, G=1, H=1, K=16, V=16, strength=0.1)
    assert plan(1, 1, 260, 16, 16, torch.float32).segments == 2
    check(inputs)


@pytest.mark.parametrize(
    ("decay", "strength", "bonus"),
    [("scalar", 30.0, False), ("channel", 12.0, False), ("channel", 30.0, True), ("channel", 300.0, True)],
)
def test_gated_linear_attention_bears_strong_decay(decay: str, strength: float, bonus: bool) -> None:
    check(gla_inputs(decay, 70, B=1, G=2, H=2, K=16, V=16, strength=strength, bonus=bonus), 1e-4)


@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gated_linear_attention_forgets_all_where_the_decay_is_infinite(decay: str) -> None:
    inputs = gla_inputs(decay, 20, B=1, G=1, H=1, K=16, V=16)
    inputs["log_decay"][:, 3], inputs["log_decay"][:, 7] = -1e5, -torch.inf
    check(inputs)


@pytest.mark.parametrize("decay", ["none", "scalar"])
def test_scores_are_scaled_before_they_are_rounded(decay: str) -> None:
    inputs = gla_inputs(decay, 5, B=1, G=1, H=1, K=128, V=16, strength=0.1, state=False)
    inputs |= {name: 25 + inputs[name] for name in "qk"}  # q · k is 80000, more than float16 holds
    inputs = {name: x.half().double() if name in "qkv" else x for name, x in inputs.items()}

    def call(**x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return TRITON[GLA].function(**{n: value.half() if n in "qkv" else value for n, value in x.items()})

    on_device = {name: x.to(DEVICE) for name, x in inputs.items()}
    actual = outputs_and_gradients(call, on_device, torch.float32)
    assert_agree(actual, outputs_and_gradients(REFERENCE[GLA], inputs), 5e-3)


def test_gated_linear_attention_reads_strided_inputs() -> None:
    inputs = {name: x.to(DEVICE).float() for name, x in gla_inputs("scalar", 20, B=1, K=16, V=16).items()}
    joined = torch.cat([inputs["q"].flatten(2), inputs["k"].flatten(2), inputs["v"].flatten(2)], -1)
    q, k, v = joined.split([32, 32, 64], -1)  # views of one projection, as a mixer makes them
    views = inputs | {"q": q.unflatten(-1, (2, 16)), "k": k.unflatten(-1, (2, 16)), "v": v.unflatten(-1, (4, 16))}
    for actual, expected in zip(TRITON[GLA].function(**views), TRITON[GLA].function(**inputs), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("T", [1, 20])
def test_gated_linear_attention_reads_a_strided_bonus(T: int) -> None:
    inputs = gla_inputs("channel", T, B=1, H=2, K=16, V=16, bonus=True)
    inputs = {name: x.to(DEVICE).float() for name, x in inputs.items()}
    wider = inputs | {"bonus": torch.cat([inputs["bonus"], inputs["bonus"].exp()], -1)[:, :16]}
    for actual, expected in zip(TRITON[GLA].function(**wider), TRITON[GLA].function(**inputs), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("with_everything", [False, True])
def test_scalar_gla_is_a_sound_operator(with_everything: bool) -> None:
    from chimeralab_kernels.triton_tier.scalar_gla import scalar_gla

    inputs = gla_inputs("scalar" if with_everything else "none", 20, B=1, H=2, K=16, V=16, state=with_everything)
    x = {name: value.to(DEVICE).float().requires_grad_() for name, value in inputs.items()}
    args = (x["q"], x["k"], x["v"], x.get("log_decay"), x.get("initial_state"), None, 0.25)
    torch.library.opcheck(scalar_gla, args, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_everything", [False, True])
def test_channel_gla_is_a_sound_operator(with_everything: bool) -> None:
    from chimeralab_kernels.triton_tier.channel_gla import channel_gla

    inputs = gla_inputs("channel", 20, B=1, H=2, K=16, V=16, state=with_everything, bonus=with_everything)
    x = {name: value.to(DEVICE).float().requires_grad_() for name, value in inputs.items()}
    args = (x["q"], x["k"], x["v"], x["log_decay"], x.get("bonus"), x.get("initial_state"), None, 0.25)
    torch.library.opcheck(channel_gla, args, rtol=1e-4, atol=1e-4)


def test_gla_step_is_a_sound_operator() -> None:
    from chimeralab_kernels.triton_tier.gla_step import gla_step

    x = {name: value.to(DEVICE).float() for name, value in gla_inputs("channel", 1, H=2, bonus=True).items()}
    args = (x["q"], x["k"], x["v"], x["log_decay"], x["bonus"], x["initial_state"], 0.25)
    torch.library.opcheck(gla_step, args)


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


def test_what_it_cannot_do_is_said() -> None:
    inputs = {name: x.to(DEVICE) for name, x in gla_inputs("scalar", 3).items()}  # float64
    told = TRITON[GLA].unsupported(**inputs)
    assert told is not None
    assert "takes q, k and v of one dtype" in told

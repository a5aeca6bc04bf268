"""The torch tier against the reference tier in float64: outputs, states and every gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from agreement import Inputs, assert_agree, delta_inputs, error, gla_inputs, outputs_and_gradients
from torch import Tensor

from chimeralab.errors import KernelError
from chimeralab_kernels import reference, torch_tier

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}
TORCH = {kernel.op: kernel.function for kernel in torch_tier.kernels()}
LENGTHS = [1, 7, 63, 65, 130]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def check(op: str, inputs: Inputs, tolerance: float = 1e-10, **options: object) -> None:
    actual = outputs_and_gradients(partial(TORCH[op], **options), inputs)
    assert_agree(actual, outputs_and_gradients(partial(REFERENCE[op], **options), inputs), tolerance)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_agrees(decay: str, T: int) -> None:
    check("gated_linear_attention", gla_inputs(decay, T))


@pytest.mark.parametrize("T", [1, 65])
@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_gated_linear_attention_agrees_with_a_bonus(decay: str, T: int) -> None:
    check("gated_linear_attention", gla_inputs(decay, T, bonus=True), scale=0.5)


@pytest.mark.parametrize("groups", [1, 4])
def test_gated_linear_attention_agrees_for_any_number_of_groups(groups: int) -> None:
    check("gated_linear_attention", gla_inputs("scalar", 65, G=groups, state=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [0.0, 30.0])
@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gated_linear_attention_bears_strong_and_absent_decay(decay: str, strength: float, dtype: torch.dtype) -> None:
    inputs = gla_inputs(decay, 130, strength=strength)
    inputs["log_decay"][:, 40:60] = 0  # weak decay after strong: differences of large sums
    actual = outputs_and_gradients(TORCH["gated_linear_attention"], inputs, dtype)
    expected = outputs_and_gradients(REFERENCE["gated_linear_attention"], inputs)
    assert_agree(actual, expected, 1e-10 if dtype == torch.float64 else 2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gated_linear_attention_forgets_all_where_the_decay_is_infinite(decay: str, dtype: torch.dtype) -> None:
    inputs = gla_inputs(decay, 20)
    inputs["log_decay"][:, 3], inputs["log_decay"][:, 7] = -1e5, -torch.inf
    actual = outputs_and_gradients(TORCH["gated_linear_attention"], inputs, dtype)
    expected = outputs_and_gradients(REFERENCE["gated_linear_attention"], inputs)
    assert_agree(actual, expected, 1e-10 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("tier", [REFERENCE, TORCH], ids=["reference", "torch"])
@pytest.mark.parametrize(
    ("op", "inputs"), [("gated_linear_attention", gla_inputs("scalar", 40)), ("delta_rule", delta_inputs("scalar", 40))]
)
def test_queries_in_half_precision_are_widened_before_they_are_scaled(op: str, inputs: Inputs, tier: dict) -> None:
    narrow = {name: x.bfloat16() for name, x in inputs.items()}
    exact = REFERENCE[op](**{name: x.double() for name, x in narrow.items()})[0].bfloat16()
    assert (tier[op](**narrow)[0] != exact).double().mean() < 0.01


@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gated_linear_attention_continues_from_its_state(decay: str) -> None:
    inputs = gla_inputs(decay, 100)
    state = inputs.pop("initial_state")
    whole, last = TORCH["gated_linear_attention"](**inputs, initial_state=state)
    outputs = []
    for start, end in ((0, 37), (37, 38), (38, 100)):
        piece = {name: x[:, start:end] for name, x in inputs.items()}
        y, state = TORCH["gated_linear_attention"](**piece, initial_state=state)
        outputs.append(y)
    assert error(torch.cat(outputs, 1), whole) < 1e-13
    assert error(state, last) < 1e-13


@pytest.mark.parametrize("decay", ["head", "scalar", "channel"])
def test_gated_linear_attention_keeps_packed_sequences_apart(decay: str) -> None:
    inputs = gla_inputs(decay, 90, B=1)
    inputs["initial_state"] = normal(4, 4, 8, 6)
    inputs["cu_seqlens"] = torch.tensor([0, 1, 71, 71, 90], dtype=torch.int32)
    check("gated_linear_attention", inputs)


def test_gated_linear_attention_reads_strided_inputs() -> None:
    inputs = gla_inputs("scalar", 70)
    strided = {name: x.mT.contiguous().mT for name, x in inputs.items()}
    actual = outputs_and_gradients(TORCH["gated_linear_attention"], strided)
    assert_agree(actual, outputs_and_gradients(TORCH["gated_linear_attention"], inputs), 1e-12)


@pytest.mark.parametrize("tier", [REFERENCE, TORCH])
def test_packed_sequences_must_fill_a_batch_of_one(tier: dict) -> None:
    inputs = gla_inputs("scalar", 9, B=1)
    with pytest.raises(KernelError, match="rising offsets from 0 to T"):
        tier["gated_linear_attention"](**inputs, cu_seqlens=torch.tensor([0, 8]))


def attention_inputs(T: int, S: int, *, G: int = 2, V: int = 8, sinks: bool = False) -> Inputs:
    inputs = {"q": normal(2, T, 4, 8), "k": normal(2, S, G, 8), "v": normal(2, S, G, V)}
    return inputs | ({"sinks": normal(4)} if sinks else {})


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 1, 20, 500])
@pytest.mark.parametrize("T", LENGTHS)
def test_attention_agrees(T: int, window: int | None, sinks: bool) -> None:
    check("attention", attention_inputs(T, T, sinks=sinks), window=window)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("T", "S", "offset"), [(1, 40, 39), (1, 40, 12), (7, 300, 0), (140, 300, 100)])
def test_attention_agrees_within_a_cache(
    T: int, S: int, offset: int, as_tensor: bool, window: int | None, sinks: bool
) -> None:
    q_offset = torch.tensor(offset) if as_tensor else offset
    check("attention", attention_inputs(T, S, sinks=sinks), window=window, q_offset=q_offset)


@pytest.mark.parametrize(("G", "V", "sinks"), [(1, 8, False), (4, 5, False), (2, 8, True)])
def test_attention_without_causality_agrees(G: int, V: int, sinks: bool) -> None:
    check("attention", attention_inputs(30, 45, G=G, V=V, sinks=sinks), causal=False, scale=0.2)


def test_attention_agrees_for_values_narrower_than_keys() -> None:
    check("attention", attention_inputs(150, 150, V=5))


@pytest.mark.parametrize("tier", [REFERENCE, TORCH])
def test_a_window_needs_causality(tier: dict) -> None:
    with pytest.raises(KernelError, match="Set causal=True"):
        tier["attention"](**attention_inputs(4, 4), causal=False, window=2)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("T", [1, 2, 65])
def test_short_convolution_agrees(T: int, activation: str | None) -> None:
    inputs = {
        "x": normal(2, T, 5),
        "weight": normal(5, 4),
        "bias": normal(5),
        "initial_state": normal(2, 3, 5),
    }
    check("short_convolution", inputs, activation=activation)


def test_short_convolution_starts_from_silence() -> None:
    check("short_convolution", {"x": normal(2, 9, 5), "weight": normal(5, 4)})


def test_short_convolution_keeps_packed_sequences_apart() -> None:
    inputs = {"x": normal(1, 12, 5), "weight": normal(5, 4), "initial_state": normal(3, 3, 5)}
    check("short_convolution", inputs, cu_seqlens=torch.tensor([0, 2, 2, 12]))


@pytest.mark.parametrize("tier", [REFERENCE, TORCH])
def test_an_unknown_activation_is_refused(tier: dict) -> None:
    with pytest.raises(KernelError, match="unknown activation 'gelu'"):
        tier["short_convolution"](normal(1, 3, 5), normal(5, 4), None, "gelu")


def test_rms_norm_of_a_sum_agrees() -> None:
    check("add_rms_norm", {"x": normal(2, 5, 8), "other": normal(2, 5, 8), "weight": normal(8)})


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm_agrees(weighted: bool, gated: bool) -> None:
    inputs = {"x": normal(2, 5, 8)}
    inputs |= {"gate": normal(2, 5, 8)} if gated else {}
    inputs |= {"weight": normal(8)} if weighted else {}
    check("rms_norm", inputs, **({} if weighted else {"weight": None}))


@pytest.mark.parametrize("by_sequence", [False, True])
def test_rotary_agrees(by_sequence: bool) -> None:
    angle = normal(2, 5, 4) if by_sequence else normal(5, 4)
    check("rotary", {"x": normal(2, 5, 3, 8), "cos": angle.cos(), "sin": angle.sin()})


def test_swiglu_agrees() -> None:
    check("swiglu", {"gate": normal(3, 8), "up": normal(3, 8)})


@pytest.mark.parametrize("ends", [[11, 11, 11], [0, 0, 11], [3, 3, 11], [1, 2, 11]])
def test_grouped_linear_agrees(ends: list[int]) -> None:
    groups = torch.tensor(ends, dtype=torch.int32)
    check("grouped_linear", {"x": normal(11, 6), "weight": normal(3, 4, 6), "ends": groups})


def test_grouped_linear_takes_no_rows() -> None:
    x, ends = torch.zeros(0, 6, dtype=torch.float64), torch.zeros(3, dtype=torch.int32)
    assert TORCH["grouped_linear"](x, normal(3, 4, 6), ends).shape == (0, 4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("logits", [1 << 24, 40])
def test_linear_cross_entropy_agrees_whole_and_in_blocks(
    logits: int, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimeralab_kernels.torch_tier.linear_cross_entropy.LOGITS", logits)
    target = torch.randint(0, 13, (11,))
    target[4:6] = -1
    inputs = {"h": normal(11, 6), "weight": normal(13, 6), "target": target}
    check("linear_cross_entropy", inputs, reduction=reduction, z_loss=0.1, ignore_index=-1)


@pytest.mark.parametrize("logits", [1 << 24, 40])
def test_linear_cross_entropy_of_no_targets_is_zero(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimeralab_kernels.torch_tier.linear_cross_entropy.LOGITS", logits)
    inputs = {"h": normal(11, 6), "weight": normal(13, 6), "target": torch.full((11,), -100)}
    found = outputs_and_gradients(TORCH["linear_cross_entropy"], inputs)
    assert all(torch.equal(x, torch.zeros_like(x)) for x in found.values())

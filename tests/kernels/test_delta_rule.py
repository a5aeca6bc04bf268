"""The delta rule: the reference against products of dense matrices, the torch tier against the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from agreement import Inputs, assert_agree, delta_inputs, error, outputs_and_gradients
from torch import Tensor

from chimeralab import KernelError, ops
from chimeralab_kernels.reference.delta_rule import delta_rule as reference
from chimeralab_kernels.torch_tier.delta_rule import delta_rule as chunked
from chimeralab_kernels.triton_tier.delta_plan import filled, sizes_lack

FORMS = ["plain", "beta", "scalar", "channel", "general"]
every_form = pytest.mark.parametrize("form", FORMS)


def by_transition_matrices(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None = None,
    log_decay: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = M_t S_{t-1} + β k vᵀ, with M_t = (I − β k kᵀ) D or D + b aᵀ, one matrix a token."""
    (B, T, H, V), K = v.shape, q.shape[-1]
    rows: list[Tensor] = []
    finals: list[Tensor] = []
    for n in range(B):
        for h in range(H):
            S, group = initial_state[n, h], h // (H // q.shape[2])
            for t in range(T):
                key, step = k[n, t, group], 1.0 if beta is None else beta[n, t, h]
                fade = torch.eye(K, dtype=v.dtype)
                if log_decay is not None:
                    fade = torch.diag(log_decay[n, t, h].exp().expand(K))
                if a is None:
                    transition = (torch.eye(K, dtype=v.dtype) - step * torch.outer(key, key)) @ fade
                else:
                    transition = fade + torch.outer(b[n, t, h], a[n, t, h])
                S = transition @ S + step * torch.outer(key, v[n, t, h])
                rows.append(q[n, t, group] @ S / K**0.5)
            finals.append(S)
    y = torch.stack(rows).view(B, H, T, V).transpose(1, 2)
    return y, torch.stack(finals).view(B, H, K, V)


@every_form
def test_reference_is_a_product_of_transition_matrices(form: str) -> None:
    inputs = delta_inputs(form, 5)
    expected = outputs_and_gradients(by_transition_matrices, inputs)
    assert_agree(outputs_and_gradients(reference, inputs), expected, 1e-12)


def check(inputs: Inputs, **options: object) -> None:
    expected = outputs_and_gradients(partial(reference, **options), inputs)
    assert_agree(outputs_and_gradients(partial(chunked, **options), inputs), expected, 1e-12)


@pytest.mark.parametrize("T", [1, 2, 7, 63, 65, 130])
@every_form
def test_chunks_agree_with_the_recurrence(form: str, T: int) -> None:
    check(delta_inputs(form, T))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_chunks_agree_for_any_number_of_groups(form: str, groups: int) -> None:
    check(delta_inputs(form, 65, G=groups, state=False), scale=0.7)


def test_the_general_form_needs_no_decay() -> None:
    inputs = delta_inputs("general", 65)
    del inputs["log_decay"]
    check(inputs)


def test_a_decay_by_head_serves_the_general_form() -> None:
    inputs = delta_inputs("general", 65)
    inputs["log_decay"] = inputs["log_decay"][..., 0]
    check(inputs)


def test_the_general_form_holds_the_delta_rule() -> None:
    """a = exp(g) k and b = −β k."""
    inputs = delta_inputs("channel", 70, G=4)
    general = {**inputs, "a": inputs["log_decay"].exp() * inputs["k"], "b": -inputs["beta"].unsqueeze(-1) * inputs["k"]}
    for actual, expected in zip(chunked(**general), chunked(**inputs), strict=True):
        assert error(actual, expected) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [0.0, 30.0])
@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_strong_and_absent_decay_are_borne(form: str, strength: float, dtype: torch.dtype) -> None:
    inputs = delta_inputs(form, 130, strength=strength)
    inputs["log_decay"][:, 40:60] = 0  # weak decay after strong: differences of large sums
    actual = outputs_and_gradients(chunked, inputs, dtype)
    assert_agree(actual, outputs_and_gradients(reference, inputs), 1e-10 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["scalar", "channel", "general"])
def test_all_is_forgotten_where_the_decay_is_infinite(form: str, dtype: torch.dtype) -> None:
    inputs = delta_inputs(form, 20)
    inputs["log_decay"][:, 3], inputs["log_decay"][:, 7] = -1e5, -torch.inf
    actual = outputs_and_gradients(chunked, inputs, dtype)
    assert_agree(actual, outputs_and_gradients(reference, inputs), 1e-10 if dtype == torch.float64 else 2e-5)


def test_repeated_keys_stay_bounded_in_float32() -> None:
    """One key again and again with β near 2: each step reflects the state, and the triangular system is far from I."""
    inputs = delta_inputs("beta", 256)
    inputs["k"] = inputs["k"][:, :1].expand(-1, 256, -1, -1).contiguous()
    inputs["beta"] = torch.full_like(inputs["beta"], 1.98)
    exact = reference(**inputs)
    single = chunked(**{name: x.float() for name, x in inputs.items()})
    for actual, expected in zip(single, exact, strict=True):
        assert error(actual, expected) < 1e-4


@every_form
def test_a_sequence_goes_on_from_its_state(form: str) -> None:
    inputs = delta_inputs(form, 100)
    state = inputs.pop("initial_state")
    whole, last = chunked(**inputs, initial_state=state)
    outputs = []
    for start, end in ((0, 37), (37, 38), (38, 100)):
        y, state = chunked(**{name: x[:, start:end] for name, x in inputs.items()}, initial_state=state)
        outputs.append(y)
    assert error(torch.cat(outputs, 1), whole) < 1e-13
    assert error(state, last) < 1e-13


@every_form
def test_packed_sequences_stay_apart(form: str) -> None:
    inputs = delta_inputs(form, 90, B=1)
    inputs["initial_state"] = torch.randn(4, 4, 8, 6, dtype=torch.float64)
    inputs["cu_seqlens"] = torch.tensor([0, 1, 71, 71, 90], dtype=torch.int32)
    check(inputs)


def test_autocast_leaves_the_recurrence_alone() -> None:
    inputs = {name: x.float() for name, x in delta_inputs("scalar", 70).items()}
    expected = chunked(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        actual = chunked(**inputs)
    assert all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@pytest.mark.parametrize("tier", [reference, chunked])
def test_a_without_b_is_refused(tier) -> None:
    inputs = delta_inputs("general", 3)
    del inputs["b"]
    with pytest.raises(KernelError, match="'a' is given and 'b' is not"):
        tier(**inputs)


@pytest.mark.parametrize("T", [1, 50, 130, 256])
@pytest.mark.parametrize("G", [1, 4])
@every_form
def test_cost_is_what_is_counted(form: str, G: int, T: int) -> None:
    inputs = delta_inputs(form, T, G=G, K=16, V=32, state=False)
    cost = ops.delta_rule_cost(4, G, 16, 32, channel_decay=form == "channel", general=form == "general")
    for device in ("cpu", "meta"):
        with ops.flop_counter() as counter:
            chunked(**{name: x.to(device) for name, x in inputs.items()})
        assert counter.get_total_flops() == cost.prefill_flops(T) * 2 * T


def test_the_gpu_kernels_leave_head_sizes_that_no_gpu_has_checked_to_the_torch_tier() -> None:
    def lack(
        K: int, V: int, dtype: torch.dtype = torch.bfloat16, by_channel: bool = False, general: bool = False
    ) -> str:
        return sizes_lack(K, V, dtype, by_channel=by_channel, general=general) or ""

    assert not any(lack(K, V) for K in (1, 96, 256) for V in (1, 96, 256))
    assert not lack(128, 256, by_channel=True)
    assert not lack(256, 128, by_channel=True, general=True)
    assert "up to 128 keys" in lack(256, 128, by_channel=True)
    assert "up to 128 values" in lack(128, 256, by_channel=True, general=True)
    assert "up to 256" in lack(300, 64)
    assert not lack(256, 256, torch.float32, by_channel=True)


def test_heads_are_filled_up_to_sizes_that_a_gpu_has_checked() -> None:
    half = torch.bfloat16
    assert filled(24, 20, half, by_channel=False, general=False) == (32, 32)
    assert filled(24, 20, half, by_channel=True, general=False) == (64, 32)
    assert filled(96, 20, half, by_channel=True, general=True) == (128, 64)
    assert filled(24, 20, torch.float32, by_channel=True, general=True) == (24, 20)

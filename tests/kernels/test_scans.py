"""Diagonal and selective scans: both tiers against sums over the past, each other, and their promises on cost."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from agreement import Inputs, assert_agree, error, outputs_and_gradients
from torch import Tensor

from chimeralab import Cost, ops
from chimeralab_kernels import reference, torch_tier

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}
TORCH = {kernel.op: kernel.function for kernel in torch_tier.kernels()}
LENGTHS = [1, 2, 7, 63, 65, 130]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


def diagonal_inputs(T: int, *, fixed: bool = False, strength: float = 1.0, B: int = 2) -> Inputs:
    decay = -strength * (uniform(5) if fixed else uniform(B, T, 5))
    return {"x": normal(B, T, 5), "log_decay": decay, "initial_state": normal(B, 5)}


def complex_inputs(T: int, *, fixed: bool = False) -> Inputs:
    """Real and imaginary parts apart, as `agreement` wants leaves; `as_complex` joins them."""
    parts = {}
    for name, x in diagonal_inputs(T, fixed=fixed).items():
        parts |= {f"{name}_re": x, f"{name}_im": normal(*x.shape)}
    return parts


def as_complex(function, **parts: Tensor) -> tuple[Tensor, Tensor]:
    names = ("x", "log_decay", "initial_state")
    h, last = function(**{name: torch.complex(parts[f"{name}_re"], parts[f"{name}_im"]) for name in names})
    return torch.view_as_real(h), torch.view_as_real(last)


def selective_inputs(T: int, *, B: int = 2, D: int = 6, N: int = 3, strength: float = 1.0) -> Inputs:
    return {
        "u": normal(B, T, D),
        "delta": strength * uniform(B, T, D),
        "A": -uniform(D, N),
        "B": normal(B, T, N),
        "C": normal(B, T, N),
        "skip": normal(D),
        "z": normal(B, T, D),
        "initial_state": normal(B, D, N),
    }


def check(op: str, inputs: Inputs, tolerance: float = 1e-12, dtype: torch.dtype = torch.float64) -> None:
    actual = outputs_and_gradients(TORCH[op], inputs, dtype)
    assert_agree(actual, outputs_and_gradients(REFERENCE[op], inputs), tolerance)


def test_reference_diagonal_scan_is_a_sum_over_the_past() -> None:
    x, log_decay, state = (torch.complex(normal(*s), normal(*s)) for s in ((2, 7, 5), (2, 7, 5), (2, 5)))
    h, last = REFERENCE["diagonal_scan"](x, log_decay, state)
    for t in range(7):
        expected = state * log_decay[:, : t + 1].sum(1).exp()
        for s in range(t + 1):
            expected = expected + x[:, s] * log_decay[:, s + 1 : t + 1].sum(1).exp()
        assert (h[:, t] - expected).abs().max() < 1e-10
    assert torch.equal(last, h[:, -1])


def test_reference_selective_scan_is_a_sum_over_the_past() -> None:
    x = selective_inputs(6)
    y, last = REFERENCE["selective_scan"](**x)
    power = x["delta"].cumsum(1)  # B T D
    for b in range(2):
        for d in range(6):
            for t in range(6):
                states = torch.exp(power[b, t, d] * x["A"][d]) * x["initial_state"][b, d]
                for s in range(t + 1):
                    kept = torch.exp((power[b, t, d] - power[b, s, d]) * x["A"][d])
                    states = states + kept * x["delta"][b, s, d] * x["B"][b, s] * x["u"][b, s, d]
                gate = x["z"][b, t, d] * torch.sigmoid(x["z"][b, t, d])
                expected = (states @ x["C"][b, t] + x["skip"][d] * x["u"][b, t, d]) * gate
                assert abs(y[b, t, d] - expected) < 1e-12
            assert (last[b, d] - states).abs().max() < 1e-12


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("fixed", [False, True])
def test_diagonal_scan_agrees(T: int, fixed: bool) -> None:
    check("diagonal_scan", diagonal_inputs(T, fixed=fixed))


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("fixed", [False, True])
def test_diagonal_scan_agrees_in_complex_numbers(T: int, fixed: bool) -> None:
    inputs = complex_inputs(T, fixed=fixed)
    actual = outputs_and_gradients(partial(as_complex, TORCH["diagonal_scan"]), inputs)
    assert_agree(actual, outputs_and_gradients(partial(as_complex, REFERENCE["diagonal_scan"]), inputs), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [0.0, 30.0])
def test_diagonal_scan_bears_strong_and_absent_decay(strength: float, dtype: torch.dtype) -> None:
    inputs = diagonal_inputs(130, strength=strength)
    inputs["log_decay"][:, 40:60] = 0
    check("diagonal_scan", inputs, 1e-12 if dtype == torch.float64 else 1e-5, dtype)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("states", [1, 1 << 19])
def test_selective_scan_agrees_whole_and_in_chunks(T: int, states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimeralab_kernels.torch_tier.selective_scan.CHUNK_STATES", states)
    check("selective_scan", selective_inputs(T))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [0.0, 30.0])
def test_selective_scan_bears_long_and_short_steps(strength: float, dtype: torch.dtype) -> None:
    check("selective_scan", selective_inputs(130, strength=strength), 1e-12 if dtype == torch.float64 else 1e-5, dtype)


@pytest.mark.parametrize("op", ["diagonal_scan", "selective_scan"])
def test_scans_start_from_nothing(op: str) -> None:
    inputs = diagonal_inputs(9) if op == "diagonal_scan" else selective_inputs(9)
    for optional in ("initial_state", "skip", "z"):
        inputs.pop(optional, None)
    check(op, inputs)


@pytest.mark.parametrize("tier", [REFERENCE, TORCH])
@pytest.mark.parametrize("op", ["diagonal_scan", "selective_scan"])
def test_scans_keep_packed_sequences_apart(op: str, tier: dict) -> None:
    inputs = diagonal_inputs(12, B=1) if op == "diagonal_scan" else selective_inputs(12, B=1)
    inputs["initial_state"] = normal(4, *inputs["initial_state"].shape[1:])
    function = tier[op]
    y, last = function(**inputs, cu_seqlens=torch.tensor([0, 1, 7, 7, 12], dtype=torch.int32))
    for i, (start, end) in enumerate(((0, 1), (1, 7), (7, 7), (7, 12))):
        alone = {name: x[:, start:end] if x.dim() == 3 else x for name, x in inputs.items()}
        alone["initial_state"] = inputs["initial_state"][i : i + 1]
        expected, state = function(**alone)
        assert error(y[:, start:end], expected) < 1e-14
        assert error(last[i : i + 1], state) < 1e-14


def test_scans_read_strided_inputs() -> None:
    for op, inputs in (("diagonal_scan", diagonal_inputs(70)), ("selective_scan", selective_inputs(70))):
        strided = {name: x.mT.contiguous().mT if x.dim() > 1 else x for name, x in inputs.items()}
        assert_agree(outputs_and_gradients(TORCH[op], strided), outputs_and_gradients(TORCH[op], inputs), 1e-12)


def test_selective_scan_holds_the_states_of_a_chunk_alone() -> None:
    """Between forward and backward it keeps its inputs and one state in eight tokens at most."""
    x = {name: value.float().requires_grad_() for name, value in selective_inputs(512, D=64, N=32).items()}
    held: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        TORCH["selective_scan"](**x)
    assert sum(held.values()) < 4 * 2 * 512 * 64 * 32 / 2


@pytest.mark.parametrize("complex_valued", [False, True])
def test_cost_of_a_diagonal_scan_is_what_is_counted(complex_valued: bool) -> None:
    x, log_decay = normal(2, 64, 5), -uniform(2, 64, 5)
    if complex_valued:
        x, log_decay = torch.complex(x, x), torch.complex(log_decay, log_decay)
    assert_counted("diagonal_scan", (x, log_decay), ops.diagonal_scan_cost(5, complex_valued=complex_valued))


def test_cost_of_a_selective_scan_is_what_is_counted() -> None:
    inputs = selective_inputs(64, D=6, N=3)
    inputs.pop("initial_state")
    assert_counted("selective_scan", tuple(inputs.values()), ops.selective_scan_cost(6, 3))


def assert_counted(op: str, args: tuple, cost: Cost) -> None:
    for device in ("cpu", "meta"):
        with ops.flop_counter() as counter:
            TORCH[op](*(x.to(device) for x in args))
        assert counter.get_total_flops() == pytest.approx(cost.prefill_flops(64) * 2 * 64, rel=0.02)


def test_scan_operators_are_sound() -> None:
    scans = torch.ops.chimeralab
    x, a, state = normal(2, 9, 5), uniform(2, 9, 5), normal(2, 5)
    torch.library.opcheck(scans.linear_scan.default, (x, a, state, False))
    torch.library.opcheck(scans.linear_scan.default, (x, a, None, True))
    w, delta, A, B, C = normal(2, 9, 6), uniform(2, 9, 6), -uniform(3, 6), normal(2, 9, 3), normal(2, 9, 3)
    initial, before = normal(2, 3, 6), normal(2, 1, 3, 6)
    torch.library.opcheck(scans.selective_scan.default, (w, delta, A, B, C, initial))
    torch.library.opcheck(scans.selective_scan_backward.default, (w, initial, w, delta, A, B, C, before))

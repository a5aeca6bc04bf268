"""One token without gradients, as in decoding, in the Triton tier: right, and one launch; see triton_cases.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from agreement import Inputs, delta_inputs, error, gla_inputs
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels import reference, triton_tier

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}
TRITON = {kernel.op: kernel for kernel in triton_tier.kernels()}
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
torch.set_num_threads(1)


def channels(op: str) -> Inputs:
    """Inputs of an op that goes from token to token over channels."""
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    B, D = 3, 20
    sums = torch.stack([normal(B, D), normal(B, D).exp(), normal(B, D)], 1)
    scan = {"u": normal(B, 1, D), "delta": normal(B, 1, D).exp(), "A": -normal(D, 3).exp(), "B": normal(B, 1, 3)}
    scan |= {"C": normal(B, 1, 3), "skip": normal(D), "z": normal(B, 1, D), "initial_state": normal(B, D, 3)}
    return {
        "short_convolution": {
            "x": normal(B, 1, D),
            "weight": normal(D, 4),
            "bias": normal(D),
            "initial_state": normal(B, 3, D),
        },
        "diagonal_scan": {"x": normal(B, 1, D), "log_decay": -normal(B, 1, D).exp(), "initial_state": normal(B, D)},
        "selective_scan": scan,
        "wkv4": {
            "k": normal(B, 1, D),
            "v": normal(B, 1, D),
            "decay": -normal(D).exp(),
            "bonus": normal(D),
            "initial_state": sums,
        },
        "taylor_linear_attention": {
            "q": normal(B, 1, 2, 5),
            "k": normal(B, 1, 2, 5),
            "v": normal(B, 1, 2, 20),
            "initial_state": _taylor_state(normal(B, 4, 2, 5), normal(B, 4, 2, 20)),
        },
    }[op]


def _taylor_state(k: Tensor, v: Tensor) -> Tensor:
    return REFERENCE["taylor_linear_attention"](k, k, v)[1]


def network(cell: str) -> Inputs:
    """Inputs of a recurrent network of two heads."""
    draws = torch.Generator().manual_seed(0)
    B, H, K, (gates, states) = 3, 2, 20, ops.CELLS[cell]
    shapes = {"x": (B, 1, H, len(gates), K), "weight": (H, len(gates), K, K), "bias": (H, len(gates), K)}
    found = {name: torch.randn(shape, generator=draws, dtype=torch.float64) for name, shape in shapes.items()}
    state = torch.randn(B, len(states), H, K, generator=draws, dtype=torch.float64)
    return found | {"initial_state": state.abs() if cell == "slstm" else state}


CASES: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    **{f"gla {decay}": ("gated_linear_attention", gla_inputs(decay, 1), {}) for decay in ("none", "scalar", "channel")},
    **{f"delta {form}": ("delta_rule", delta_inputs(form, 1), {}) for form in ("plain", "beta", "scalar", "channel")},
    "delta general": ("delta_rule", {n: x for n, x in delta_inputs("general", 1).items() if n != "beta"}, {}),
    "gla with a bonus": ("gated_linear_attention", gla_inputs("channel", 1, bonus=True), {}),
    "short_convolution": ("short_convolution", channels("short_convolution"), {"activation": "silu"}),
    **{op: (op, channels(op), {}) for op in ("diagonal_scan", "selective_scan", "wkv4", "taylor_linear_attention")},
    **{cell: ("rnn_scan", network(cell), {"cell": cell}) for cell in ops.CELLS},
}
every_op = pytest.mark.parametrize(("op", "inputs", "others"), CASES.values(), ids=CASES)


@pytest.mark.parametrize("state", [True, False])
@every_op
def test_a_step_agrees(op: str, inputs: Inputs, others: dict[str, Any], state: bool) -> None:
    if not state:
        inputs = {name: x for name, x in inputs.items() if name != "initial_state"}
    with torch.no_grad():
        found = TRITON[op].function(**{name: x.to(DEVICE).float() for name, x in inputs.items()}, **others)
    for actual, expected in zip(found, REFERENCE[op](**inputs, **others), strict=True):
        assert error(actual, expected) < 1e-6


VIEWS = "alias as_strided detach expand flatten permute select slice squeeze transpose unbind unflatten unsqueeze view"
NO_LAUNCH = {*VIEWS.split(), "contiguous", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "reshape"}
NO_LAUNCH |= {"_reshape_alias", "broadcast_tensors", "to", "view_as_complex", "view_as_real"}


@every_op
def test_a_step_is_one_launch(op: str, inputs: Inputs, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.jit import KernelInterface

    launched: list[str] = []

    def note(kernel: Any, grid: Any) -> Any:
        return lambda *_, **__: launched.append(kernel.__name__)

    moved = {name: x.to(DEVICE).float() for name, x in inputs.items()}
    with torch.no_grad():
        TRITON[op].function(**moved, **others)  # what is imported and set up at the first call
        monkeypatch.setattr(KernelInterface, "__getitem__", note)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            TRITON[op].function(**moved, **others)
    called = {event.name.removeprefix("aten::") for event in profile.events() if event.name.startswith("aten::")}
    assert "empty" in called
    assert len(launched) == 1
    assert called <= NO_LAUNCH


def test_steps_are_sound_operators() -> None:
    from chimeralab_kernels.triton_tier.convolution_step import convolution_step
    from chimeralab_kernels.triton_tier.taylor_step import taylor_step

    x = {name: value.to(DEVICE).float() for name, value in channels("short_convolution").items()}
    torch.library.opcheck(convolution_step, (*x.values(), True))
    x = {name: value.to(DEVICE).float() for name, value in channels("taylor_linear_attention").items()}
    torch.library.opcheck(taylor_step, tuple(x.values()))

    from chimeralab_kernels.triton_tier.rnn_step import rnn_step

    x = {name: value.to(DEVICE).float() for name, value in network("lstm").items()}
    torch.library.opcheck(rnn_step, (x["x"], x["weight"], "lstm", x["bias"], x["initial_state"]))


def test_a_network_of_many_tokens_is_left_to_the_torch_tier() -> None:
    x, weight = torch.zeros(2, 5, 1, 1, 4, device=DEVICE), torch.zeros(1, 1, 4, 4, device=DEVICE)
    unsupported = TRITON["rnn_scan"].unsupported
    assert unsupported(x, weight, "tanh") == "takes one token, as in decoding"
    assert unsupported(x[:, :1], weight.requires_grad_(), "tanh") == "has no gradients"

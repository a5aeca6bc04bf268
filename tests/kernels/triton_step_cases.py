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


CASES: dict[str, tuple[str, Inputs]] = {
    **{f"gla {decay}": ("gated_linear_attention", gla_inputs(decay, 1)) for decay in ("none", "scalar", "channel")},
    "delta general": ("delta_rule", {name: x for name, x in delta_inputs("general", 1).items() if name != "beta"}),
    "gla with a bonus": ("gated_linear_attention", gla_inputs("channel", 1, bonus=True)),
    **{f"delta {form}": ("delta_rule", delta_inputs(form, 1)) for form in ("plain", "beta", "scalar", "channel")},
    **{op: (op, channels(op)) for op in ("short_convolution", "diagonal_scan", "selective_scan", "wkv4")},
    "taylor_linear_attention": ("taylor_linear_attention", channels("taylor_linear_attention")),
}
every_op = pytest.mark.parametrize(("op", "inputs"), CASES.values(), ids=CASES)
OTHERS: dict[str, dict[str, Any]] = {"short_convolution": {"activation": "silu"}}


@pytest.mark.parametrize("state", [True, False])
@every_op
def test_a_step_agrees(op: str, inputs: Inputs, state: bool) -> None:
    if not state:
        inputs = {name: x for name, x in inputs.items() if name != "initial_state"}
    others = OTHERS.get(op, {})
    with torch.no_grad():
        found = getattr(ops, op)(**{name: x.to(DEVICE).float() for name, x in inputs.items()}, **others)
    for actual, expected in zip(found, REFERENCE[op](**inputs, **others), strict=True):
        assert error(actual, expected) < 1e-6


VIEWS = "alias as_strided detach expand flatten permute select slice squeeze transpose unbind unflatten unsqueeze view"
NO_LAUNCH = {*VIEWS.split(), "contiguous", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "reshape"}
NO_LAUNCH |= {"_reshape_alias", "broadcast_tensors", "to", "view_as_complex", "view_as_real"}


@every_op
def test_a_step_is_one_launch(op: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.jit import KernelInterface

    launched: list[str] = []

    def note(kernel: Any, grid: Any) -> Any:
        return lambda *_, **__: launched.append(kernel.__name__)

    moved = {name: x.to(DEVICE).float() for name, x in inputs.items()}
    others = OTHERS.get(op, {})
    with torch.no_grad():
        getattr(ops, op)(**moved, **others)  # what is imported and set up at the first call
        monkeypatch.setattr(KernelInterface, "__getitem__", note)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            getattr(ops, op)(**moved, **others)
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

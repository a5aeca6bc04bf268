"""What is the state spaces' own: where they start, how they learn, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chimeralab import SpecError
from chimeralab.plugins import registry

DYNAMICS = {
    "lssl": {"A", "B", "log_dt"},
    "s4": {"log_A", "A_imag", "P", "B", "log_dt"},
    "s4d": {"log_A", "A_imag", "B", "log_dt"},
}
every_space = pytest.mark.parametrize("name", DYNAMICS)


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return registry().mixers[name].build(64, **options)


@every_space
def test_dynamics_learn_slowly_and_never_decay(name: str) -> None:
    mixer = build(name, lr_scale=0.2)
    (slow,) = (group for group in mixer.param_groups() if group.lr_scale == 0.2)
    names = {id(p): n for n, p in mixer.named_parameters()}
    assert {names[id(p)] for p in slow.params} == DYNAMICS[name]
    assert not slow.weight_decay


@every_space
def test_steps_start_between_their_bounds(name: str) -> None:
    steps = build(name, dt_min=0.01, dt_max=0.2).log_dt.detach().exp()
    assert 0.01 <= float(steps.min()) < 0.02
    assert 0.15 < float(steps.max()) <= 0.2001


@every_space
def test_parameters_are_real(name: str) -> None:
    """Checkpoints in safetensors and fused optimizers know no complex numbers."""
    assert all(p.dtype == torch.float32 for p in build(name).parameters())


@every_space
def test_memory_of_an_impulse_fades(name: str) -> None:
    with torch.no_grad():
        kernel = build(name).system(torch.float64, 2000).kernel(2000)
    assert kernel[:, -100:].abs().mean() < 0.05 * kernel[:, :100].abs().mean()


@every_space
def test_bounds_that_cross_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"dt_min 0.2 exceeds dt_max 0.1"):
        build(name, dt_min=0.2)


def test_an_odd_state_is_refused() -> None:
    with pytest.raises(SpecError, match="d_state 7 is odd"):
        build("s4d", d_state=7)

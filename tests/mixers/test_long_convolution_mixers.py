"""What is H3's, Hyena's and Monarch's own: refusals, filters at the start, histories that fill up."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chimeralab import SpecError
from chimeralab.plugins import registry


def build(name: str, width: int = 64, **options: Any) -> Any:
    torch.manual_seed(0)
    return registry().mixers[name].build(width, **options)


def test_h3_heads_must_divide_the_width() -> None:
    with pytest.raises(SpecError, match="mixer h3: head_dim 7 does not divide width 64"):
        build("h3", head_dim=7)


def test_h3_dynamics_learn_slowly_and_never_decay() -> None:
    mixer = build("h3")
    (slow,) = (group for group in mixer.param_groups() if group.lr_scale == 0.1)
    names = {id(p): n for n, p in mixer.named_parameters()}
    assert {names[id(p)] for p in slow.params} == {"log_A", "A_imag", "B", "log_dt"}
    assert not slow.weight_decay

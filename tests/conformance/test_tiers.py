"""Every mixer and feed-forward computes on every kernel tier, in every dtype, what the reference does in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from chimeralab.plugins import registry
from chimeralab.testing import TierConformance
from chimeralab.testing.tier import DTYPES, tiers
from chimeralab_plugins.mixers.gla import GLA
from layer_options import FEED_FORWARD_OPTIONS, MIXER_OPTIONS


def _cases() -> list[Any]:
    layers = [(layer, MIXER_OPTIONS) for layer in registry().mixers.values()]
    layers += [(layer, FEED_FORWARD_OPTIONS) for layer in registry().feed_forwards.values()]
    return [
        pytest.param(
            TierConformance.of(layer=layer, options=options.get(layer.name, [{}])[0], tier=tier, dtype=dtype),
            id=f"{layer.name}-{tier}-{name}",
            marks=pytest.mark.contract(layer.name),
        )
        for layer, options in layers
        if not layer.null
        for tier in tiers(layer)
        for name, dtype in DTYPES.items()
    ]


@pytest.mark.parametrize("suite", _cases())
def test_layer_agrees_with_the_reference_in_float64(suite: TierConformance) -> None:
    broken = [str(finding) for finding in suite.run() if not finding.ok]
    assert not broken


def test_what_no_kernel_serves_is_told_and_not_failed() -> None:
    found = TierConformance.of(layer=GLA, tier="triton", dtype=torch.float64).run()  # which no GPU kernel takes
    assert len(found) == 4
    assert all(finding.ok and finding.message.startswith("not served here: ") for finding in found)


class SumsInBfloat16(GLA):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return ((y + 64) - 64 if y.dtype == torch.bfloat16 else y), state


class ForgetsInFloat32(GLA):
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = super().step(x, state)
        return (0.999 * y if y.dtype == torch.float32 else y), state


@pytest.mark.parametrize(
    ("layer", "dtype", "failing"),
    [
        (SumsInBfloat16, torch.bfloat16, {"output", "decoding", "a_sequence_in_two_parts"}),
        (ForgetsInFloat32, torch.float32, {"decoding"}),
        (GLA, torch.bfloat16, set()),
    ],
)
def test_a_loss_of_digits_is_found(layer: type[GLA], dtype: torch.dtype, failing: set[str]) -> None:
    found = TierConformance.of(layer=layer, dtype=dtype).run()
    assert {f.check.split("_agree")[0].removeprefix("test_") for f in found if not f.ok} == failing

"""What is the delta-rule mixers' own: refusals, published shapes, what weight decay leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn import functional as F

from chimeralab import Mixer, SpecError
from chimeralab_plugins.mixers.delta_net import DeltaNet
from chimeralab_plugins.mixers.delta_product import DeltaProduct
from chimeralab_plugins.mixers.gated_delta_net import GatedDeltaNet
from chimeralab_plugins.mixers.kda import KDA


@pytest.mark.parametrize(
    ("mixer", "options", "message"),
    [
        (DeltaNet, {"heads": 3}, "mixer delta_net: 3 heads do not divide the width 64 of keys"),
        (KDA, {"heads": 2, "expand_v": 0.01}, "mixer kda: 2 heads do not divide the width 1 of values"),
        (GatedDeltaNet, {"heads": 4, "key_heads": 3}, "mixer gated_delta_net: key_heads 3 do not divide heads 4"),
        (DeltaProduct, {"heads": 5}, "mixer delta_product: 5 heads do not divide the width 48 of keys"),
    ],
)
def test_options_that_do_not_fit_are_refused(mixer: type[Mixer], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        mixer.build(64, **options)


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (DeltaNet, (16, 16, 128, 128)),
        (KDA, (16, 16, 128, 128)),
        (GatedDeltaNet, (6, 6, 256, 512)),
        (DeltaProduct, (6, 6, 256, 512)),
    ],
)
def test_defaults_are_the_published_shapes_at_width_2048(mixer: type[Mixer], shape: tuple[int, ...]) -> None:
    assert mixer.Config().shape(2048) == shape


@pytest.mark.parametrize("mixer", [GatedDeltaNet, KDA, DeltaProduct])
def test_decays_and_norms_are_not_decayed_and_steps_start_small(mixer: type[Mixer]) -> None:
    layer = mixer.build(64)
    (free,) = (group for group in layer.param_groups() if not group.weight_decay)
    names = {id(p): name for name, p in layer.named_parameters()}
    assert {names[id(p)] for p in free.params} == {"A_log", "dt_bias", "norm"}
    assert 0.0009 < float(F.softplus(layer.dt_bias).min())
    assert float(F.softplus(layer.dt_bias).max()) < 0.101

"""What is the recurrent mixers' own: refusals, published initialisations, starting from attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from chimeralab import Place, SpecError
from chimeralab_plugins.mixers.attention import Attention
from chimeralab_plugins.mixers.gla import GLA
from chimeralab_plugins.mixers.linear_attention import LinearAttention
from chimeralab_plugins.mixers.mamba2 import Mamba2


@pytest.mark.parametrize(
    ("mixer", "options", "message"),
    [
        (Mamba2, {"head_dim": 48}, "mixer mamba2: head_dim 48 does not divide the inner width 128"),
        (Mamba2, {"groups": 3}, "mixer mamba2: groups 3 do not divide heads 2"),
        (GLA, {"heads": 3}, "mixer gla: heads 3 do not divide the width 32 of keys"),
        (LinearAttention, {"heads": 3}, "mixer linear_attention: heads 3 do not divide width 64"),
        (LinearAttention, {"feature_map": "identity"}, "may sum to zero. Choose normaliser=rms"),
    ],
)
def test_options_that_do_not_fit_are_refused(mixer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        mixer.build(64, **options)


def test_mamba2_starts_with_steps_between_a_thousandth_and_a_tenth() -> None:
    steps = F.softplus(Mamba2.build(1024).dt_bias).detach()
    assert 0.001 <= float(steps.min()) < 0.005
    assert 0.05 < float(steps.max()) <= 0.1001


def test_mamba2_keeps_decays_and_norms_out_of_weight_decay() -> None:
    mixer = Mamba2.build(64)
    (free,) = (group for group in mixer.param_groups() if not group.weight_decay)
    names = {id(p): name for name, p in mixer.named_parameters()}
    assert {names[id(p)] for p in free.params} == {"A_log", "D", "dt_bias", "conv_bias", "norm"}


def test_the_last_projection_starts_smaller_in_a_deep_stack() -> None:
    torch.manual_seed(0)
    shallow, deep = GLA.build(64), GLA.build(64, place=Place(0, 16))
    assert (shallow.o.weight.std() / deep.o.weight.std()).item() == pytest.approx(4, rel=0.1)


@torch.no_grad()
def test_linear_attention_repeats_shared_heads_of_the_attention_it_starts_from() -> None:
    source, target = Attention.build(64, heads=4, kv_heads=2), LinearAttention.build(64, heads=4)
    target.init_from_attention(*(getattr(source, p).weight for p in "qkvo"))
    k = target.k.weight.view(4, 16, 64)
    assert torch.equal(k[0], k[1])
    assert torch.equal(k[2], source.k.weight.view(2, 16, 64)[1])
    assert torch.equal(target.q.weight, source.q.weight)

"""What is the scan mixers' own: refusals, published initialisations, what the optimizer leaves alone, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from chimeralab import Place, SpecError
from chimeralab_plugins.mixers.hgrn import HGRN
from chimeralab_plugins.mixers.lru import LRU
from chimeralab_plugins.mixers.mamba import Mamba
from chimeralab_plugins.mixers.rg_lru import RGLRU
from chimeralab_plugins.mixers.s5 import S5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("mixer", "options", "message"),
    [
        (RGLRU, {"heads": 3}, "mixer rg_lru: heads 3 do not divide the width 64 of the recurrence"),
        (LRU, {"r_min": 0.9, "r_max": 0.5}, "mixer lru: r_min 0.9 is not below r_max 0.5"),
        (S5, {"d_state": 6, "blocks": 2}, "mixer s5: 2 blocks do not cut a state of 6 into even parts"),
        (S5, {"dt_min": 0.1, "dt_max": 0.01}, "mixer s5: dt_min 0.1 exceeds dt_max 0.01"),
    ],
)
def test_options_that_do_not_fit_are_refused(mixer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        mixer.build(64, **options)


def _free_of_decay(mixer: Any) -> set[str]:
    names = {id(p): name for name, p in mixer.named_parameters()}
    return {names[id(p)] for group in mixer.param_groups() if not group.weight_decay for p in group.params}


def test_mamba_starts_as_its_authors_do() -> None:
    ssm = Mamba.build(512).ssm
    steps = F.softplus(ssm.dt_bias).detach()
    assert 0.001 <= float(steps.min()) < 0.005
    assert 0.05 < float(steps.max()) <= 0.1001
    assert torch.allclose(ssm.A_log.exp(), torch.arange(1.0, 17).expand(1024, -1))
    assert ssm.dt_proj.weight.shape == (1024, 32)


def test_mamba_keeps_decays_out_of_weight_decay() -> None:
    assert _free_of_decay(Mamba.build(64)) == {"ssm.A_log", "ssm.D", "ssm.dt_bias", "ssm.conv_bias"}


def test_rg_lru_starts_on_a_ring_close_to_one() -> None:
    decay = torch.exp(-8 * F.softplus(RGLRU.build(1024).decay)).detach()  # σ(Λ)^c
    assert 0.9 <= float(decay.min()) < 0.91
    assert 0.995 < float(decay.max()) <= 0.9991


def test_rg_lru_has_finite_gradients_where_nothing_is_forgotten() -> None:
    mixer, x = RGLRU.build(16), torch.randn(1, 9, 16)
    with torch.no_grad():
        mixer.decay.fill_(-40)  # a = 1 in float32: the slope of √(1 − a²) is infinite
    mixer(x)[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())


def test_lru_starts_on_its_ring_and_stays_within_the_disc() -> None:
    mixer = LRU.build(512, r_min=0.5, r_max=0.9, max_phase=1.0)
    log_decay, gamma = mixer.dynamics(torch.float64)
    radius = log_decay.exp().abs().detach()
    assert 0.5 <= float(radius.min()) < 0.55
    assert 0.88 < float(radius.max()) <= 0.9
    assert float(log_decay.imag.detach().max()) <= 1.0
    assert torch.allclose(gamma, (1 - radius.square()).sqrt(), atol=1e-6)
    with torch.no_grad():
        mixer.nu_log.fill_(-30)
    assert (mixer.dynamics(torch.float64)[0].exp().abs() <= 1).all()


def test_state_spaces_and_rings_learn_at_a_rate_of_their_own() -> None:
    for mixer, own in (
        (LRU.build(16), {"nu_log", "theta_log", "gamma_log"}),
        (S5.build(16), {"log_rate", "frequency", "log_dt", "B.weight"}),
    ):
        names = {id(p): name for name, p in mixer.named_parameters()}
        (group,) = (group for group in mixer.param_groups() if group.lr_scale != 1)
        assert {names[id(p)] for p in group.params} == own
        assert not group.weight_decay


def test_s5_starts_from_a_hippo_in_each_block() -> None:
    mixer = S5.build(16, d_state=16, blocks=2)
    assert torch.allclose(mixer.log_rate.exp(), torch.full((8,), 0.5))
    assert torch.equal(mixer.frequency[:4], mixer.frequency[4:])
    assert float(mixer.frequency.detach()[:4].diff().min()) > 0


def test_hgrn_forgets_less_in_deeper_layers() -> None:
    layers = [HGRN.build(16, place=Place(layer, 4)) for layer in range(4)]
    assert [layer.lower_bound for layer in layers] == [0, 0.25, 0.5, 0.75]

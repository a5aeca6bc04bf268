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


def test_hyena_filters_start_within_their_windows() -> None:
    """The first channel falls to a hundredth after 1.5 lengths, the last after 0.3: (1/100)^(1/1.5) at the end."""
    taps = build("hyena", length=512).filter.taps(512, torch.float64).detach().abs()
    assert taps[-1, 300:].max() < 0.02 * taps[-1, :50].max()
    assert taps[0, 300:].max() > 0.05 * taps[0, :50].max()


def test_hyena_sees_nothing_beyond_its_filters() -> None:
    mixer = build("hyena", length=20, conv=2).double()
    x = torch.randn(1, 60, 64, dtype=torch.float64)
    moved = x.clone()
    moved[:, 10] += 1
    with torch.no_grad():
        change = (mixer(moved)[0] - mixer(x)[0]).abs().amax(-1)[0]
    assert change[10 + 20] > 1e-5  # one tap of the short convolution further
    assert change[10 + 21 :].max() < 1e-12


@pytest.mark.parametrize("name", ["hyena", "monarch"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_history_refuses_tokens_that_it_cannot_hold(tokens: int, name: str) -> None:
    mixer = build(name, length=100)
    _, state = mixer(torch.randn(2, 7, 64), mixer.init_state(2, 7))
    with pytest.raises(SpecError, match=f"room for 7 tokens and would hold {7 + tokens}"):
        mixer(torch.randn(2, tokens, 64), state)


def test_hyena_forgets_in_a_full_history_only_what_it_no_longer_reads() -> None:
    mixer = build("hyena", length=5).double()
    x = torch.randn(1, 40, 64, dtype=torch.float64)
    state = mixer.init_state(1, 1000, dtype=x.dtype)
    assert state.past.inputs.shape[1] == 5
    with torch.no_grad():
        first, state = mixer(x[:, :30], state)
        second, _ = mixer(x[:, 30:], state)
        whole = mixer(x)[0]
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-12)


@pytest.mark.parametrize("name", ["hyena", "monarch"])
def test_filters_learn_at_their_own_rate(name: str) -> None:
    mixer = build(name, filter_lr_scale=0.3)
    (own,) = (group for group in mixer.param_groups() if group.lr_scale == 0.3)
    filters = {id(p) for n, p in mixer.named_parameters() if n.startswith("filter")}
    assert {id(p) for p in own.params} == filters


def test_blocks_of_monarch_matrices_must_divide_the_widths() -> None:
    with pytest.raises(SpecError, match="monarch_mlp: blocks 3 do not divide the width 64"):
        registry().feed_forwards["monarch_mlp"].build(64, blocks=3)


def test_monarch_matrices_in_four_blocks_halve_the_weights_or_better() -> None:
    """Of 2 · 64 · 256 dense weights, (64 / 4) · (64 + 256) stand in each matrix: 5/16."""
    mixer = registry().feed_forwards["monarch_mlp"]
    assert mixer.cost(mixer.Config(bias=False), 64).params == 2 * 64 * 256 * 5 // 16

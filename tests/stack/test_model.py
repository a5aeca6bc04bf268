"""The built model: its three views agree, its parameters are all accounted for, a seed fixes its weights."""

from __future__ import annotations

import pytest
import torch

from chimeralab.contracts import ParamGroup
from chimeralab.plugins import registry
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.model import StackModel

HYBRID = (
    "mamba2[head_dim=16, d_state=8], attention[heads=2, window=5], gla[heads=2], attention[heads=2, kv_heads=1],"
    " short_conv, ffn=(swiglu, none, mlp, swiglu, mlp)"
)
VOCABULARY, TOKENS = 19, 21


@pytest.fixture(scope="module")
def hybrid() -> StackModel:
    return build(compose(HYBRID, d_model=32), VOCABULARY, dtype=torch.float64, seed=0)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:  # B T
    return torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_decoding_token_by_token_agrees_with_one_forward(hybrid: StackModel, tokens: torch.Tensor) -> None:
    whole, _ = hybrid(tokens)
    state = hybrid.init_state(2, TOKENS)
    for t in range(TOKENS):
        logits, state = hybrid.step(tokens[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)


@pytest.mark.parametrize("cut", [1, 4, 13])
@torch.no_grad()
def test_going_on_from_a_state_agrees_with_one_forward(hybrid: StackModel, tokens: torch.Tensor, cut: int) -> None:
    whole, _ = hybrid(tokens)
    first, state = hybrid(tokens[:, :cut])
    second, _ = hybrid(tokens[:, cut:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-10)


@torch.no_grad()
def test_decoding_after_a_prefill_agrees_with_one_forward(hybrid: StackModel, tokens: torch.Tensor) -> None:
    whole, _ = hybrid(tokens)
    _, state = hybrid(tokens[:, :9], hybrid.init_state(2, TOKENS))
    for t in range(9, TOKENS):
        logits, state = hybrid.step(tokens[:, t], state)
    torch.testing.assert_close(logits, whole[:, -1], rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_sequence_does_not_depend_on_its_neighbour(hybrid: StackModel, tokens: torch.Tensor) -> None:
    together, _ = hybrid(tokens)
    alone, _ = hybrid(tokens[1:])
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_logits(hybrid: StackModel, tokens: torch.Tensor) -> None:
    targets = tokens.roll(-1, 1)
    targets[:, -1] = -100
    logits, _ = hybrid(tokens)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(hybrid.loss(tokens, targets), expected, rtol=0, atol=1e-6)  # it sums in float32


@pytest.mark.parametrize("mixer", sorted(registry().mixers))
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_exactly_one_group(mixer: str, tied: bool) -> None:
    model = build(compose(f"{mixer} x2, ffn=(swiglu, mlp)", d_model=64, tie_embeddings=tied), 16, device="meta")
    grouped = [id(parameter) for group in model.param_groups() for parameter in group.params]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_embeddings_decay_and_norms_do_not(hybrid: StackModel) -> None:
    names = {id(parameter): name for name, parameter in hybrid.named_parameters()}
    decays = {names[id(p)]: group.weight_decay for group in hybrid.param_groups() for p in group.params}
    assert decays["embedding.weight"]
    assert not any(decay for name, decay in decays.items() if name.endswith("norm.weight"))


def test_groups_that_ask_for_the_same_are_one(hybrid: StackModel) -> None:
    asked = [(group.weight_decay, group.lr_scale) for group in hybrid.param_groups()]
    assert len(asked) == len(set(asked))


def test_a_learning_rate_scale_of_a_layer_reaches_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(compose("attention", d_model=32), 16)
    mixer = model.layers[0].mixer
    monkeypatch.setattr(mixer, "param_groups", lambda: [ParamGroup([*mixer.parameters()], lr_scale=0.5)])
    (slow,) = (group for group in model.param_groups() if group.lr_scale == 0.5)
    assert len(slow.params) == len([*mixer.parameters()])


def test_a_tied_head_is_the_embedding() -> None:
    model = build(compose("attention", d_model=32), 16)
    assert model.head_weight is model.embedding.weight


def test_an_untied_head_has_weights_of_its_own() -> None:
    stack = compose("attention", d_model=32)
    tied, untied = (build(stack.model_copy(update={"tie_embeddings": tie}), 16) for tie in (True, False))
    assert untied.parameter_count() == tied.parameter_count() + 16 * 32


def test_a_seed_fixes_the_weights() -> None:
    stack = compose(HYBRID, d_model=32)
    first, second = (build(stack, 16, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights() -> None:
    stack = compose("attention", d_model=32)
    assert not torch.equal(build(stack, 16, seed=3).embedding.weight, build(stack, 16, seed=4).embedding.weight)


def test_on_the_meta_device_a_large_model_takes_no_memory() -> None:
    model = build(compose("every(4, attention, base=mamba2) x64", d_model=8192), 128_000, device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.parameter_count() > 2e10


def test_a_layer_without_a_feed_forward_has_no_norm_for_it() -> None:
    model = build(compose("mamba2, ffn=none", d_model=32), 16)
    assert model.layers[0].ffn_norm is None

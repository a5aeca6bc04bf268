"""Layers that share weights: one set of parameters, a state and an adapter for each use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from chimeralab import LayerSpec, SpecError, ops, parse
from chimeralab.plugins import registry
from chimeralab.runs.checkpoint import Position, load, save
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.cost import cost
from chimeralab.stack.model import StackModel

MAMBA = "mamba2[head_dim=16, d_state=8]"
SHARED = f"({MAMBA}, attention[heads=2]@a + lora(4)) x2, attention[heads=2]@a, ffn=(none, swiglu, none, swiglu, swiglu)"
TOKENS = 13


def is_adapter(name: str) -> bool:
    return name.startswith("layers.") and name.endswith((".down", ".up"))


@pytest.fixture(scope="module")
def model() -> StackModel:
    built = build(compose(SHARED, d_model=32), 19, dtype=torch.float64, seed=0)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if is_adapter(name):
                parameter.normal_(std=0.3)  # adapters start at zero, which would hide them
    return built


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:  # B T
    return torch.randint(19, (2, TOKENS), generator=torch.Generator().manual_seed(1))


def test_a_shared_weight_is_named_once_after_its_label(model: StackModel) -> None:
    names = [name for name, _ in model.named_parameters() if "mixer.q" in name]
    assert names == [
        "shared.a.mixer.q.weight",
        "layers.1.mixer.q.down",
        "layers.1.mixer.q.up",
        "layers.3.mixer.q.down",
        "layers.3.mixer.q.up",
    ]


def test_a_new_adapter_changes_nothing() -> None:
    plain, adapted = (
        build(compose(f"attention@a, attention@a{adapter}", d_model=32), 19, dtype=torch.float64, seed=0)
        for adapter in ("", " + lora(4)")
    )
    weights = dict(plain.named_parameters())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if not is_adapter(name):
                parameter.copy_(weights[name])
    tokens = torch.arange(8).view(1, 8)
    torch.testing.assert_close(adapted(tokens)[0], plain(tokens)[0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_uses_of_one_layer_keep_states_of_their_own(model: StackModel, tokens: torch.Tensor) -> None:
    whole, _ = model(tokens)
    state = model.init_state(2, TOKENS)
    for t in range(TOKENS):
        logits, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)


def test_the_gradient_of_a_shared_weight_is_the_sum_over_its_uses(model: StackModel, tokens: torch.Tensor) -> None:
    """Built as three layers of equal weights, and their gradients added up."""
    apart = build(compose(SHARED.replace("@a + lora(4)", "").replace("@a", ""), d_model=32), 19, dtype=torch.float64)
    twin = build(compose(SHARED.replace(" + lora(4)", ""), d_model=32), 19, dtype=torch.float64, seed=0)
    apart.embedding.load_state_dict(twin.embedding.state_dict())
    apart.norm.load_state_dict(twin.norm.state_dict())
    for layer, like in zip(apart.layers, twin.layers, strict=True):
        layer.load_state_dict(like.state_dict())
    for each in (apart, twin):
        each.loss(tokens, tokens.roll(-1, 1)).backward()
    summed = sum(apart.layers[i].mixer.o.weight.grad for i in (1, 3, 4))
    torch.testing.assert_close(twin.shared["a"].mixer.o.weight.grad, summed, rtol=1e-6, atol=1e-9)


def test_every_parameter_is_in_exactly_one_group(model: StackModel) -> None:
    grouped = [id(parameter) for group in model.param_groups() for parameter in group.params]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize(
    "pattern", [SHARED, SHARED.replace(" + lora(4)", ""), "gla@b + lora(3), attention, gla@b, ffn=mlp"]
)
def test_cost_counts_shared_weights_once_and_every_adapter(pattern: str) -> None:
    stack = compose(pattern, d_model=32)
    report, model = cost(stack, vocab_size=19), build(stack, 19, device="meta")
    assert report.total_params == model.parameter_count()
    assert sum(layer.params for layer in report.layers) == model.parameter_count() - 19 * 32 - 32
    assert report.params.get("adapters", 0) == sum(p.numel() for n, p in model.named_parameters() if is_adapter(n))


def test_flops_of_adapters_are_those_that_are_counted() -> None:
    stack, T = compose("attention@a + lora(8), attention@a, attention@a + lora(4)", d_model=64), 128
    model = build(stack, 16)
    with torch.no_grad(), ops.flop_counter() as counter:
        model(torch.zeros(1, T, dtype=torch.int64))
    declared = cost(stack, vocab_size=16, sequence_length=T).prefill_flops * T
    assert declared == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("mixer", sorted(name for name, cls in registry().mixers.items() if not cls.null))
def test_an_adapter_reaches_every_linear_map_of_a_mixer(mixer: str) -> None:
    """A mixer that reads a map's weight by itself would pass its adapter by."""
    ops.load()
    try:
        model = build(compose(f"{mixer}@a + lora(2), ffn=none", d_model=64), 16, seed=0)
    except SpecError as error:
        assert "no linear map" in str(error)  # noqa: PT017
        return
    model.loss(torch.arange(12).view(1, 12), torch.arange(12).view(1, 12)).backward()
    unreached = [name for name, p in model.named_parameters() if name.endswith(".up") and p.grad is None]
    assert unreached == []


def test_a_checkpoint_holds_shared_weights_once(model: StackModel, tokens: torch.Tensor, tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    path = save(tmp_path, model, optimizer, Position(step=1))
    other = build(compose(SHARED, d_model=32), 19, dtype=torch.float64, seed=5)
    load(path, other, torch.optim.AdamW(other.parameters()))
    torch.testing.assert_close(other(tokens)[0], model(tokens)[0], rtol=0, atol=0)
    size = sum(p.numel() * 8 for p in model.parameters())
    assert size < (path / "model.safetensors").stat().st_size < size * 1.2


def test_weights_stay_shared_in_another_dtype() -> None:
    model = build(compose(SHARED, d_model=32), 19, device="cpu", dtype=torch.bfloat16)
    assert model.layers[4].mixer.q.weight is model.shared["a"].mixer.q.weight
    assert model.layers[1].mixer.q.linear.weight is model.shared["a"].mixer.q.weight


@pytest.mark.parametrize(
    ("pattern", "place", "message"),
    [
        (
            "attention@a, mamba2@a",
            "layer 1",
            "the layer shared as 'a' has mixer 'mamba2' here and 'attention' at layer 0",
        ),
        ("attention@a, attention[window=4]@a", "layer 1", "has options {'window': 4} here and {} at layer 0"),
        ("attention@a x2, ffn=(mlp, swiglu)", "layer 1", "has ffn 'swiglu' here and 'mlp' at layer 0"),
    ],
)
def test_two_layers_that_share_a_label_and_nothing_else_are_refused(pattern: str, place: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        compose(pattern)
    assert caught.value.place == place


def test_an_unshared_layer_is_saved_as_before() -> None:
    assert parse("attention")[0].model_dump() == {
        "mixer": "attention",
        "options": {},
        "ffn": "swiglu",
        "ffn_options": {},
    }


def test_a_shared_layer_survives_json() -> None:
    (layer,) = parse("attention@a + lora(8)")
    assert LayerSpec.model_validate_json(layer.model_dump_json()) == layer

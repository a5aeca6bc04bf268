"""Settings of the whole stack: where norms stand, what embeddings and logits go through, learned positions."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from chimeralab import SpecError, StackSpec, ops
from chimeralab.runs import RunSpec
from chimeralab.runs.check import check
from chimeralab.runs.evaluate import generate
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.cost import cost, saved_bytes
from chimeralab.stack.model import StackModel
from chimeralab.stack.spec import FORMS, Residual

D, VOCABULARY, TOKENS = 32, 19, 13
PATTERN = "attention[heads=2], gla[heads=2], attention[heads=2, window=4], ffn=(mlp, none, swiglu)"
SETTINGS: list[dict[str, Any]] = [
    *({"residual": form, "norm": norm} for form in get_args(Residual) for norm in ("rms", "layer")),
    {"embedding_scale": 5.5, "embedding_norm": True},
    {"positions": TOKENS, "norm": "layer", "tie_embeddings": False},
    {"logit_cap": 0.7},
    {"residual": "scaled", "condition": 24},
    {"residual": "adaptive", "norm": "layer", "condition": 40},
]


def named(settings: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in settings.items())


def model_of(settings: dict[str, Any]) -> StackModel:
    model = build(compose(PATTERN, d_model=D, **settings), VOCABULARY, dtype=torch.float64, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # ones and zeros hide what is left out
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


@pytest.fixture(params=SETTINGS, ids=named)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def tokens() -> Tensor:  # B T
    return torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(2))


def written_out(model: StackModel, stack: StackSpec, tokens: Tensor) -> Tensor:
    """The logits, with torch's own norms and one line for each form."""

    def linear(which: Any, x: Tensor) -> Tensor:
        return F.linear(x, which.weight, which.bias)

    def norm(which: Any, x: Tensor) -> Tensor:
        if stack.norm == "layer":
            return F.layer_norm(x, (D,), which.weight, which.bias, stack.norm_eps)
        return F.rms_norm(x, (D,), which.weight, stack.norm_eps)

    x = model.embedding.weight[tokens] * stack.embedding_scale
    x = x + model.positions.weight[:TOKENS] if model.positions is not None else x
    x = norm(model.embedding_norm, x) if stack.embedding_norm else x
    if stack.condition_width:  # level 0 turns by no angle: cosines 1, sines 0; the class is the last of the table
        waves = torch.tensor([1.0] * 128 + [0.0] * 128, dtype=x.dtype)
        told = model.condition
        c = linear(told.level_out, F.silu(linear(told.level_in, waves))) + told.classes.weight[-1]
    for layer in model.layers:
        parts = [(layer.mixer, layer.mixer_norm, layer.mixer_out_norm), (layer.ffn, layer.ffn_norm, layer.ffn_out_norm)]
        parts = [part for part in parts if part[0] is not None]
        if stack.residual == "parallel" and len(parts) == 2:
            normed = norm(layer.mixer_norm, x)
            x = x + layer.mixer(normed)[0] + layer.ffn(normed)[0]
            continue
        if stack.residual == "scaled":
            for (f, before, _), scale in zip(parts, linear(layer.modulation.linear, c).split(D), strict=True):
                x = x + f((1 + scale) * norm(before, x))[0]
            continue
        if stack.residual == "adaptive":
            vectors = linear(layer.modulation.linear, F.silu(c)).unflatten(0, (len(parts), 3, D))
            for (f, before, _), (scale, shift, gate) in zip(parts, vectors, strict=True):
                x = x + gate * f((1 + scale) * norm(before, x) + shift)[0]
            continue
        for f, before, after in parts:
            match stack.residual:
                case "pre" | "parallel":
                    x = x + f(norm(before, x))[0]
                case "post":
                    x = norm(after, x + f(x)[0])
                case "reordered":
                    x = x + norm(after, f(x)[0])
                case "sandwich":
                    x = x + norm(after, f(norm(before, x))[0])
    x = x if stack.residual == "post" else norm(model.norm, x)
    if stack.residual == "adaptive":
        scale, shift = linear(model.modulation.linear, F.silu(c)).split(D)
        x = (1 + scale) * x + shift
    logits = x @ (model.embedding if stack.tie_embeddings else model.head).weight.T
    return stack.logit_cap * torch.tanh(logits / stack.logit_cap) if stack.logit_cap else logits


@torch.no_grad()
def test_logits_are_those_of_the_form_written_out(settings: dict[str, Any], tokens: Tensor) -> None:
    model = model_of(settings)
    expected = written_out(model, compose(PATTERN, d_model=D, **settings), tokens)
    torch.testing.assert_close(model(tokens)[0], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_decoding_and_going_on_agree_with_one_forward(settings: dict[str, Any], tokens: Tensor) -> None:
    model = model_of(settings)
    whole, _ = model(tokens)
    state = model.init_state(2, TOKENS)
    for t in range(5):
        logits, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)
    middle, state = model(tokens[:, 5:9], state)
    torch.testing.assert_close(middle, whole[:, 5:9], rtol=0, atol=1e-10)
    for t in range(9, TOKENS):
        logits, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "sums"),
    [
        ({}, 2),
        ({"residual": "sandwich"}, 2),
        ({"residual": "post"}, 0),
        ({"residual": "parallel"}, 0),
        ({"norm": "layer"}, 0),
    ],
    ids=str,
)
def test_what_joins_the_stream_within_a_layer_is_normed_with_it(
    settings: dict[str, Any], sums: int, tokens: Tensor
) -> None:
    model = build(compose("attention[heads=2] x3, ffn=(mlp, none, swiglu)", d_model=D, **settings), VOCABULARY)
    with ops.record() as calls:
        model(tokens)
    assert [call.op for call in calls].count("add_rms_norm") == sums


def test_the_loss_is_the_cross_entropy_of_the_logits(settings: dict[str, Any], tokens: Tensor) -> None:
    model = model_of(settings)
    targets = tokens.roll(-1, 1)
    targets[:, -1] = -100
    expected = F.cross_entropy(model(tokens)[0].flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model.loss(tokens, targets), expected, rtol=0, atol=1e-5, check_dtype=False)


def test_costs_are_those_of_the_model(settings: dict[str, Any]) -> None:
    stack = compose(PATTERN, d_model=D, **settings)
    report, model = cost(stack, vocab_size=VOCABULARY), build(stack, VOCABULARY, device="meta")
    assert report.total_params == model.parameter_count()
    own = [sum(p.numel() for p in layer.parameters()) for layer in model.layers]
    assert [layer.params for layer in report.layers] == own
    assert report.params.get("positions", 0) == stack.positions * D


def test_activations_are_those_that_the_layers_save(settings: dict[str, Any]) -> None:
    stack = compose(PATTERN, d_model=D, **settings)
    model, x = build(stack, VOCABULARY, seed=0), torch.randn(1, TOKENS, D, requires_grad=True)
    weights = [*model.parameters()]
    saved = sum(saved_bytes(lambda layer=layer: layer(x)[0], exclude=weights) for layer in model.layers)
    assert cost(stack, batch_size=1, sequence_length=TOKENS).memory["activations"] == saved


def test_every_parameter_is_in_one_group_and_no_norm_decays(settings: dict[str, Any]) -> None:
    model = build(compose(PATTERN, d_model=D, **settings), VOCABULARY, device="meta")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = [(names[id(p)], group.weight_decay) for group in model.param_groups() for p in group.params]
    assert sorted(name for name, _ in decays) == sorted(names.values())
    assert not any(decay for name, decay in decays if "norm" in name)


def test_what_says_its_default_is_not_saved(settings: dict[str, Any]) -> None:
    plain = compose("attention", d_model=D).model_dump()
    assert plain.keys() == {"layers", "d_model", "norm_eps", "tie_embeddings"}
    stack = compose(PATTERN, d_model=D, **settings)
    saved = json.loads(stack.model_dump_json())
    usual = {name: StackSpec.model_fields[name].default for name in FORMS}
    kept = {name: value for name, value in settings.items() if name in FORMS and value != usual[name]}
    assert {name: saved[name] for name in saved if name in FORMS} == kept
    assert StackSpec.model_validate(saved) == stack


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"residual": "both"}, "stack.residual"),
        ({"norm": "batch"}, "stack.norm"),
        ({"embedding_scale": 0}, "stack.embedding_scale"),
        ({"embedding_scale": float("inf")}, "stack.embedding_scale"),
        ({"positions": -1}, "stack.positions"),
        ({"logit_cap": 0}, "stack.logit_cap"),
    ],
)
def test_a_form_that_there_is_not_is_refused(settings: dict[str, Any], place: str) -> None:
    with pytest.raises(SpecError, match=place):
        compose("attention", d_model=D, **settings)


def test_positions_that_run_out_are_an_error_and_end_a_sample(tokens: Tensor) -> None:
    model = build(compose("attention[heads=2]", d_model=D, positions=TOKENS), VOCABULARY, seed=0)
    with pytest.raises(SpecError, match=f"positions for {TOKENS} tokens, not for {TOKENS + 1}"):
        model(torch.cat((tokens, tokens[:, :1]), 1))
    assert len(generate(model, tokens[0, :5], 20)) == TOKENS - 5


def test_a_run_with_sequences_beyond_its_positions_is_refused() -> None:
    spec = RunSpec(stack=compose("attention[heads=2]", d_model=D, positions=8), task={"name": "mqar"})
    with pytest.raises(SpecError, match=r"stack\.positions: learned positions for 8 tokens"):
        check(spec)


def test_uses_of_a_shared_layer_have_norms_in_common() -> None:
    stack = compose("attention[heads=2]@a, gla[heads=2], attention[heads=2]@a", d_model=D, residual="sandwich")
    model = build(stack, VOCABULARY, device="meta")
    assert cost(stack, vocab_size=VOCABULARY).total_params == model.parameter_count()
    assert model.layers[0].ffn_out_norm.weight is model.layers[2].ffn_out_norm.weight

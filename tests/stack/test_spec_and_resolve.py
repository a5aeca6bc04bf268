"""A stack that cannot be built is refused with the layer, the field and what would be right."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from chimeralab import LayerSpec, SpecError, StackSpec, parse
from chimeralab.stack.compose import compose
from chimeralab.stack.resolve import resolve
from chimeralab.stack.spec import MAX_LAYERS


@pytest.mark.parametrize(
    ("pattern", "place", "message"),
    [
        ("attention x2, mamab2", "layer 2", "unknown mixer 'mamab2'. did you mean 'mamba2'?"),
        ("attention x3, ffn=(swiglu x2, swigul)", "layer 2", "unknown feed-forward 'swigul'. did you mean 'swiglu'?"),
        ("attention x2, attention[windw=4]", "layer 2: attention", "unknown option 'windw'. did you mean 'window'?"),
        (
            "attention x2, attention[window=0]",
            "layer 2: attention.window",
            "input should be greater than or equal to 1, not 0",
        ),
        ("attention x2, attention[window=half]", "layer 2: attention.window", "not 'half'"),
        ("attention x2, attention[heads=3]", "layer 2: attention", "heads 3 do not divide width 64. Choose heads that"),
        ("attention, ffn=swiglu[hidden=-1]", "layer 0: swiglu.hidden", "greater than or equal to 1, not -1"),
    ],
)
def test_a_layer_that_cannot_be_built_is_named(pattern: str, place: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        compose(pattern, d_model=64)
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"d_model": 12}, "stack.d_model"),
        ({"d_model": 0}, "stack.d_model"),
        ({"d_model": 65544}, "stack.d_model"),
        ({"norm_eps": 0}, "stack.norm_eps"),
        ({"tie_embeddings": "perhaps"}, "stack.tie_embeddings"),
    ],
)
def test_a_setting_out_of_bounds_is_named(settings: dict[str, Any], place: str) -> None:
    with pytest.raises(SpecError) as caught:
        compose("attention", **settings)
    assert caught.value.place == place


def test_an_unknown_setting_names_the_one_that_was_meant() -> None:
    with pytest.raises(SpecError, match=r"stack: unknown option 'd_modl'. did you mean 'd_model'\?"):
        compose("attention", d_modl=64)


@pytest.mark.parametrize("layers", [0, MAX_LAYERS + 1])
def test_a_stack_has_between_one_layer_and_a_thousand(layers: int) -> None:
    with pytest.raises(ValidationError, match="layers"):
        StackSpec(layers=(LayerSpec(mixer="attention"),) * layers)


def test_a_stack_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        StackSpec(layers=parse("attention")).d_model = 64  # type: ignore[misc]


def test_a_stack_survives_json() -> None:
    stack = compose("every(2, attention[window=8], base=mamba2) x4, ffn=(mlp[bias=false], none)", d_model=64)
    assert StackSpec.model_validate_json(stack.model_dump_json()) == stack


def test_a_preset_stands_for_its_pattern() -> None:
    assert compose(" transformer ").layers == parse("attention x6")


def test_a_setting_wins_over_the_default_of_a_preset() -> None:
    assert compose("transformer", d_model=128).d_model == 128


def test_equal_layers_are_resolved_once() -> None:
    layers = resolve(compose("attention x1000, mamba2", d_model=64))
    assert len({id(layer) for layer in layers}) == 2

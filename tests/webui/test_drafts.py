"""What the server makes of an editor's draft."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from chimeralab import Lab
from chimeralab_webui import drafts


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.open(tmp_path_factory.mktemp("drafts"))


def layer(mixer: str, **options: object) -> dict:
    return {"mixer": mixer, "options": options, "ffn": "swiglu", "ffn_options": {}}


def test_layers_are_answered_with_their_text(lab: Lab) -> None:
    stack, reply = drafts.read(lab, {"rev": 3, "layers": [layer("mamba2"), layer("attention", window=8)]})
    assert stack is not None
    assert (reply["rev"], reply["text"], reply["error"]) == (3, "mamba2, attention[window=8]", None)


def test_text_is_answered_with_its_layers(lab: Lab) -> None:
    _, reply = drafts.read(lab, {"rev": 1, "text": "attention x2"})
    assert reply["layers"] == [layer("attention")] * 2


def test_text_that_cannot_be_read_keeps_its_words_and_names_the_column(lab: Lab) -> None:
    stack, reply = drafts.read(lab, {"rev": 1, "text": "attention x2, ("})
    assert stack is None
    assert reply["text"] == "attention x2, ("
    assert reply["error"]["column"] == 16


def test_wrong_option_is_placed_at_its_layer_and_field(lab: Lab) -> None:
    stack, reply = drafts.read(lab, {"rev": 1, "text": "mamba2, attention[window=0]"})
    error = reply["error"]
    assert stack is None
    assert (error["layer"], error["part"], error["field"]) == (1, "attention", "window")
    assert len(reply["layers"]) == 2


def test_wrong_setting_is_placed_at_the_setting(lab: Lab) -> None:
    _, reply = drafts.read(lab, {"rev": 1, "text": "attention", "settings": {"d_model": 7}})
    assert reply["error"]["setting"] == "d_model"


def test_empty_strip_is_an_error_with_a_remedy(lab: Lab) -> None:
    _, reply = drafts.read(lab, {"rev": 1, "layers": []})
    assert (reply["text"], reply["error"]["reason"]) == ("", "the stack has no layers")


def test_address_keeps_only_what_differs_from_the_defaults(lab: Lab) -> None:
    stack, reply = drafts.read(lab, {"rev": 1, "text": "attention", "settings": {"d_model": 64}})
    assert stack is not None
    shown = {name: value for name, value in reply["query"].items() if value is not None}
    assert shown == {"pattern": "attention", "d_model": "64"}


@pytest.mark.parametrize(
    ("part", "use"),
    [("share", {"share": "my layer"}), ("share", {"share": "4x"})]
    + [("lora", {"share": "a", "lora": rank}) for rank in (-1, 2.5, 5000)],
)
def test_wrong_use_of_a_shared_layer_is_placed_at_its_field(lab: Lab, part: str, use: dict) -> None:
    stack, reply = drafts.read(lab, {"rev": 1, "layers": [layer("attention"), layer("attention") | use]})
    assert stack is None
    assert (reply["error"]["layer"], reply["error"]["part"]) == (1, part)
    assert "Value error" not in reply["error"]["reason"]


def test_endless_pattern_is_an_error_with_a_remedy(lab: Lab) -> None:
    _, reply = drafts.read(lab, {"rev": 1, "text": "attention, " * 6000})
    assert reply["error"]["reason"] == "the pattern is longer than 50000 characters"


@pytest.mark.parametrize("value", [None, [], "text", {"layers": "attention"}])
def test_anything_else_from_a_browser_is_refused(lab: Lab, value: object) -> None:
    with pytest.raises(ValidationError):
        drafts.read(lab, value)


def test_opened_stack_is_read_back_the_same(lab: Lab, tmp_path: Path) -> None:
    stack = lab.compose("(mamba2 x2, attention[heads=2]) x2", d_model=64, tie_embeddings=False)
    assert drafts.read(lab, drafts.opened(stack))[0] == stack

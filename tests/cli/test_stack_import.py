"""`chimeralab stack --from`: another library's pattern, shown expanded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chimeralab import Lab
from chimeralab.cli.app import app
from chimeralab.errors import SpecError


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["stack", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_an_import_is_shown_expanded_with_its_costs() -> None:
    shown = run("--from", "megatron:M-M*-")
    assert "mamba2 x2, attention, ffn=(mlp, none, mlp)" in shown
    assert "parameters" in shown


def test_what_is_done_otherwise_is_said() -> None:
    assert "multi-token prediction" in run("--from", "megatron:M-/M")


def test_an_import_as_json_is_its_expanded_stack() -> None:
    shown = json.loads(run("--from", "megatron:M*", "--json"))
    assert [layer["mixer"] for layer in shown["stack"]["layers"]] == ["mamba2", "attention"]


def test_the_width_of_a_config_holds_unless_another_is_asked_for(tmp_path: Path) -> None:
    file = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(file | {"intermediate_size": 96}))
    source = f"hf:{tmp_path / 'config.json'}"
    assert json.loads(run("--from", source, "--json"))["stack"]["d_model"] == 64
    assert json.loads(run("--from", source, "--json", "-d", "128"))["stack"]["d_model"] == 128


def test_a_preset_keeps_its_own_width() -> None:
    assert json.loads(run("gpt2-124m", "--json"))["stack"]["d_model"] == 768


def test_options_in_brackets_are_shown() -> None:
    assert "attention[window=5]" in run("attention[window=5]")


@pytest.mark.parametrize("arguments", [(), ("attention", "--from", "megatron:M")])
def test_a_pattern_or_an_import_is_wanted_and_not_both(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["stack", *arguments])
    assert done.exit_code == 2
    assert "not" in done.output


def test_the_lab_imports_too(tmp_path: Path) -> None:
    with Lab.open(tmp_path) as lab:
        imported = lab.import_stack("h-net:m3T1")
        lab.check(imported.stack(d_model=64))
        assert imported.text == "mamba2 x3, attention, ffn=(none x3, swiglu)"


def test_an_import_that_cannot_be_built_is_shown_before_it_is_refused() -> None:
    done = CliRunner().invoke(app, ["stack", "--from", "megatron:M*", "-d", "8"])
    assert "mamba2, attention" in done.output
    assert isinstance(done.exception, SpecError)

"""`chimeralab weights`, and a run that starts from what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from chimeralab import Lab
from chimeralab.cli.app import app
from chimeralab.errors import LabError
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.weights import export_weights, load

LLAMA = "attention[heads=4, kv_heads=2] x2, ffn=swiglu[hidden=48]"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    stack = compose(LLAMA, d_model=32)
    weights = dict(build(stack, 256, seed=0).named_parameters())
    return export_weights(stack, weights, tmp_path / "theirs").folder


def called(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_is_imported_is_said(theirs: Path, tmp_path: Path) -> None:
    shown = called("weights", "import", theirs, tmp_path / "ours")
    assert "llama, 20 tensors" in shown
    assert LLAMA in shown


def test_import_and_export_give_the_file_back(theirs: Path, tmp_path: Path) -> None:
    imported = json.loads(called("weights", "import", theirs, tmp_path / "ours", "--json"))
    assert (imported["family"], imported["vocab_size"], imported["pattern"]) == ("llama", 256, LLAMA)
    home = ("--home", tmp_path / "home")
    exported = json.loads(called("weights", "export", tmp_path / "ours", tmp_path / "back", "--json", *home))
    assert exported["family"] == "llama"
    for file in ("config.json", "model.safetensors"):
        assert (theirs / file).read_bytes() == (tmp_path / "back" / file).read_bytes()


def test_an_export_takes_a_family_and_a_dtype(theirs: Path, tmp_path: Path) -> None:
    called("weights", "import", theirs, tmp_path / "ours")
    more = ("--family", "mistral", "--dtype", "bfloat16", "--home", tmp_path / "home")
    called("weights", "export", tmp_path / "ours", tmp_path / "back", *more)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("mistral", "bfloat16")
    called("weights", "import", tmp_path / "back", tmp_path / "again")
    first, second = (load(tmp_path / name).embedding.weight for name in ("ours", "again"))
    assert torch.equal(first.bfloat16().float(), second)


def test_a_run_starts_from_weights_with_their_stack(theirs: Path, tmp_path: Path) -> None:
    called("weights", "import", theirs, tmp_path / "ours")
    home = tmp_path / "home"
    said = json.loads(called("run", "--weights", tmp_path / "ours", "--detach", "--json", "--home", home))
    with Lab.open(home) as lab:
        spec = lab.spec(said["id"])
    assert spec.start is not None
    assert spec.start.folder == str(tmp_path / "ours")
    assert spec.stack.text == LLAMA


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "attention x3", "-d", "32"], "are of another stack"),
        (["run", "--set", "stack.norm=layer"], "stack.norm: the stack is that of the weights"),
        (["run", "--set", "task.options.tokenizer=bpe"], "the weights know 256 tokens"),
    ],
)
def test_a_run_that_does_not_fit_its_weights_is_refused(
    arguments: list[str], message: str, theirs: Path, tmp_path: Path
) -> None:
    called("weights", "import", theirs, tmp_path / "ours")
    more = ["--weights", str(tmp_path / "ours"), "--detach", "--home", str(tmp_path / "home")]
    with pytest.raises(LabError, match=message):
        CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
    with Lab.open(tmp_path / "home") as lab:
        assert lab.runs().total == 0


def test_a_run_wants_a_pattern_or_weights() -> None:
    done = CliRunner().invoke(app, ["run", "--detach"])
    assert done.exit_code == 2
    assert "PATTERN" in done.output


def test_a_run_that_there_is_not_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="7"):
        CliRunner().invoke(
            app, ["weights", "export", "7", str(tmp_path / "out"), "--home", str(tmp_path)], catch_exceptions=False
        )


def test_a_run_that_has_not_begun_has_nothing_to_export(theirs: Path, tmp_path: Path) -> None:
    called("weights", "import", theirs, tmp_path / "ours")
    called("run", "--weights", tmp_path / "ours", "--detach", "--home", tmp_path)
    with Lab.open(tmp_path) as lab, pytest.raises(LabError, match="run 1: it has no checkpoint yet"):
        lab.export_weights(1, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""A third party's wheel, in a virtual environment of its own: installed, used, removed; its old runs stay readable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from chimeralab.authoring import new_plugin

pytestmark = pytest.mark.cluster
Chimeralab = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that sees this one's packages and can have more of its own."""
    folder = tmp_path_factory.mktemp("scratch") / "venv"
    venv.create(folder, with_pip=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    # addsitedir and not a plain line: the laboratory may be an editable install, which is a .pth file over there
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return folder


@pytest.fixture
def chimeralab(scratch: Path, tmp_path: Path) -> Chimeralab:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [scratch / "bin" / "python", "-c", "from chimeralab.cli import main; main()", *arguments]
        environment = {**os.environ, "CHIMERALAB_HOME": str(tmp_path / "home")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_install_train_uninstall(scratch: Path, chimeralab: Chimeralab, tmp_path: Path) -> None:
    package = new_plugin("drifter", "mixer", tmp_path)
    wheels = tmp_path / "wheels"
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, package], check=True)
    pip = [scratch / "bin" / "python", "-m", "pip", "-q"]
    subprocess.run([*pip, "install", "--no-deps", *wheels.glob("drifter-*.whl")], check=True)

    listed = {p["name"]: p for p in json.loads(chimeralab("plugins", "--json").stdout)}
    assert (listed["drifter"]["package"], listed["drifter"]["state"]) == ("drifter", "active")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    pattern = "drifter, attention"
    options = ["--steps=5", "--batch-size=2", "-d", "32", "--json", "--name=hybrid"]
    options += ["--set", f"task.options.source={corpus}", "--set", "task.options.sequence_length=32"]
    options += ["--set", "profile.contexts=[16]", "--set", "train.sample_tokens=0"]
    run = json.loads(chimeralab("run", pattern, *options).stdout)
    assert run["status"] == "completed"

    subprocess.run([*pip, "uninstall", "-y", "drifter"], check=True)
    shown = json.loads(chimeralab("show", "hybrid", "--json").stdout)
    assert shown["pattern"] == pattern
    assert shown["metrics"]["train/loss"]["step"] == 5
    assert "drifter" in chimeralab("show", "hybrid").stdout
    refused = chimeralab("stack", pattern, code=2)
    assert "layer 0: unknown mixer 'drifter'" in refused.stderr.replace("\n", " ")

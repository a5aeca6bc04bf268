"""`chimeralab plugin new` writes packages whose tests pass as written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chimeralab import SpecError
from chimeralab.authoring import KINDS, new_plugin
from installed import install_metadata


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_plugin_pass_as_written(kind: str, tmp_path: Path) -> None:
    package = new_plugin(f"my-{kind.replace('_', '-')}", kind, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(package), "tests"]
    environment = install_metadata(package)
    done = subprocess.run(command, env=environment, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_formatted_and_clean(kind: str, tmp_path: Path) -> None:
    package = new_plugin("clean-one", kind, tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    for action in (["check", "--select=E,F,W"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *action, "--isolated", "--line-length=120", package], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("mine", "mixr", "unknown kind 'mixr'"),
        ("attention", "mixer", "mixer 'attention' is already installed"),
        ("../up", "mixer", "cannot be a module's name"),
        ("class", "task", "cannot be a module's name"),
    ],
)
def test_a_name_or_kind_that_cannot_be_is_refused(name: str, kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        new_plugin(name, kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    new_plugin("mine", "page", tmp_path)
    with pytest.raises(SpecError, match="exists already"):
        new_plugin("mine", "mixer", tmp_path)

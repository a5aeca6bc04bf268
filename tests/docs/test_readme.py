"""The README's mixer in one file is a real plugin: it is found, composed, costed, and passes the conformance suite."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(first_line: str) -> str:
    """The code block of the README that begins with this comment."""
    found = re.search(rf"```\w+\n({re.escape(first_line)}\n.*?)```", README, re.DOTALL)
    assert found, f"README has no block {first_line!r}"
    return found[1]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The example installed as pip would leave it: its module, and its entry point in the metadata."""
    (tmp_path / "ema_mixer.py").write_text(block("# ema_mixer.py"))
    (tmp_path / "test_ema.py").write_text(block("# test_ema.py"))
    project = block("# pyproject.toml")
    entry = re.search(r'\[project\.entry-points\.chimeralab\]\n(\w+) = "(\w+)"', project)
    assert entry
    metadata = tmp_path / "ema_mixer-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ema-mixer\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(f"[chimeralab]\n{entry[1]} = {entry[2]}\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def test_the_example_composes_with_the_others(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", "from chimeralab.cli import main; main()", "stack", "every(2, attention, base=ema) x4"]
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    layers = json.loads(done.stdout)["stack"]["layers"]
    assert [layer["mixer"] for layer in layers] == ["ema", "attention", "ema", "attention"]


def test_the_example_passes_the_conformance_suite(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_ema.py"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 15  # type: ignore[index]

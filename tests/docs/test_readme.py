"""The README's mixer in one file is a real plugin: it is found, composed, costed, and passes the conformance suite."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from installed import install_metadata

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(first_line: str) -> str:
    """The code block of the README that begins with this comment."""
    found = re.search(rf"```\w+\n({re.escape(first_line)}\n.*?)```", README, re.DOTALL)
    assert found, f"README has no block {first_line!r}"
    return found[1]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("ema_mixer.py", "test_ema.py", "pyproject.toml"):
        (tmp_path / name).write_text(block(f"# {name}"))
    return tmp_path


@pytest.fixture
def environment(package: Path) -> dict[str, str]:
    return install_metadata(package)


def test_the_example_is_built_with_its_test_beside_it(package: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", "."]
    done = subprocess.run(pip, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (package / "wheels").glob("ema_mixer-*.whl")
    assert [name for name in ZipFile(wheel).namelist() if name.endswith(".py")] == ["ema_mixer.py"]


def test_the_example_composes_with_the_others(environment: dict[str, str]) -> None:
    program = [sys.executable, "-c", "from chimeralab.cli import main; main()"]
    command = [*program, "stack", "every(2, attention, base=ema) x4", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    layers = json.loads(done.stdout)["stack"]["layers"]
    assert [layer["mixer"] for layer in layers] == ["ema", "attention", "ema", "attention"]


def test_the_example_passes_the_conformance_suite(environment: dict[str, str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "test_ema.py",
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 15  # type: ignore[index]

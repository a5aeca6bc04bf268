"""The embedded Ray head: one that dies while it starts is started again, and told about when it always does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chimeralab.scheduling.cluster import START_TRIES


def dying_python(folder: Path, deaths: int) -> str:
    """A Python that ends at once, the first times that it is called; `folder`/calls has a line for each call."""
    calls = folder / "calls"
    calls.touch()
    script = folder / "python"
    script.write_text(
        f"""#!/bin/sh
echo >> {calls}
[ $(wc -l < {calls}) -gt {deaths} ] || {{ echo "the node timed out"; exit 1; }}
exec {sys.executable} "$@"
"""
    )
    script.chmod(0o755)
    return str(script)


def open_and_close(home: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Open a lab with its own cluster, in a process of its own: a process has one connection to Ray."""
    lines = (
        "import sys; from chimeralab import Lab",
        f"sys.executable = {python!r}",
        f"Lab.open({str(home)!r}, cluster='embedded', cpus=1).close()",
    )
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


@pytest.mark.cluster
def test_a_head_that_dies_at_its_start_is_started_again(tmp_path: Path) -> None:
    done = open_and_close(tmp_path / "home", dying_python(tmp_path, deaths=1))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("did not start: the node timed out; trying again") == 1


def test_a_head_that_never_starts_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    done = open_and_close(tmp_path / "home", dying_python(tmp_path, deaths=99))
    assert "ClusterError: cluster: the embedded Ray cluster did not start: the node timed out" in done.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == START_TRIES

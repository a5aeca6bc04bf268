"""A run of tests that is cut short has told what failed, and what it was at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CASES = """
import os
def test_passes(): pass
def test_fails(): assert 1 + 1 == 3
def test_is_cut_short(): os._exit(9)
"""


def test_a_run_that_is_cut_short_has_told_what_failed(tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES, encoding="utf-8")
    log = tmp_path / "run.log"
    command = [sys.executable, "-m", "pytest", "-p", "run_log", "--run-log", str(log), "test_cases.py"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.returncode == 9
    told = log.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("passed   test_cases.py::test_passes") for line in told)
    assert any(line.startswith("failed   test_cases.py::test_fails") for line in told)
    assert any(line.startswith("E ") and "assert (1 + 1) == 3" in line for line in told)
    assert told[-1] == "started  test_cases.py::test_is_cut_short"

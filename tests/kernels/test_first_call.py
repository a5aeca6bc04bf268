"""First calls of the Triton tier's operators, on a machine without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from chimeralab_kernels import triton_tier

CASES = Path(__file__).parent / "first_call_cases.py"


def test_first_calls_compile_side_by_side() -> None:
    # A process of its own: Triton without its interpreter, and a driver that no other test may meet.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES)]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_every_kernel_and_operator_can_be_rehearsed() -> None:
    files = [path for path in Path(triton_tier.__file__).parent.glob("*.py") if path.stem != "first_call"]
    direct = re.compile(r"triton\.jit|custom_op|register_autograd")
    assert {path.name: direct.findall(path.read_text()) for path in files} == {path.name: [] for path in files}

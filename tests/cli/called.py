"""A finished call of the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

COMMAND = (sys.executable, "-c", "from chimeralab.cli import main; main()")


class Finished(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Finished]


def call_process(*arguments: str, timeout: float = 300, **options: Any) -> Finished:
    """Call the command as a process of its own."""
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, **options)
    return Finished(done.returncode, done.stdout, done.stderr)

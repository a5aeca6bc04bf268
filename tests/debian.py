"""What a test needs of Debian, installed where it is missing and this is root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def install(package: str, command: str, *options: str) -> None:
    """Install a package, unless it has brought its command meanwhile. One process at a time: apt refuses a second.

    Nothing happens without apt or as an ordinary user; whether it is there now is the caller's to find out.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    with (Path(tempfile.gettempdir()) / "chimeralab-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which(command):
            return
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for action in (["update"], ["install", "--yes", *options, package]):
            subprocess.run(["apt-get", "-qq", *action], check=False, env=environment)

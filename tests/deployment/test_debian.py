"""Test processes that miss the same package of Debian at the same time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import debian

APT = """#!/bin/sh
mkdir {busy} || exit 100
echo "$@" >> {log}
sleep 0.1
case "$*" in *install*) touch {command}; chmod +x {command};; esac
rmdir {busy}
"""


def test_one_process_installs_while_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    apt, log = tools / "apt-get", tmp_path / "log"
    apt.write_text(APT.format(busy=tmp_path / "busy", log=log, command=tools / "drawer"))
    apt.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    threads = [threading.Thread(target=debian.install, args=("drawing-tools", "drawer", "--quick")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text().splitlines() == ["-qq update", "-qq install --yes --quick drawing-tools"]


def test_an_ordinary_user_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it calls apt"))
    debian.install("drawing-tools", "a-command-that-nobody-has")

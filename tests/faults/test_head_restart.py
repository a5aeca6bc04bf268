"""A Ray head that is somebody else's, as in docker-compose.yml, is started again under a dashboard."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chimeralab import Lab
from chimeralab.scheduling.cluster import _end
from small_runs import small_spec

UP = """
from chimeralab import lab
from chimeralab.cli import main, serve
lab.SILENT_SECONDS, serve.LOOK_SECONDS = 8.0, 4.0  # not a minute, as a lab has
main()
"""


class Head:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ray"
        self.log = folder / "head.log"
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={self.port}"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
        command += [f"--temp-dir={self.folder}", "--object-store-memory=134217728", "--num-cpus=2"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=self.environment
            )
        wait_for(lambda: "Ray runtime started" in self.log.read_text(), 240)

    def kill(self) -> None:
        if self.process is not None:
            _end(self.process.pid, self.folder)
            self.process.wait()


def free_port() -> int:
    """One below those that Ray keeps for its workers."""
    for port in range(6400, 9000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError("no port is free")


def wait_for(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def head() -> Iterator[Head]:
    with TemporaryDirectory(prefix="head-", ignore_cleanup_errors=True) as folder:  # short: Ray puts sockets into it
        found = Head(Path(folder))
        found.start()
        yield found
        found.kill()


@pytest.mark.cluster
def test_runs_go_on_when_the_head_was_started_again(head: Head, tmp_path: Path) -> None:
    command = [sys.executable, "-c", UP, "up", f"--port={free_port()}", "--home", str(tmp_path)]
    up = subprocess.Popen([*command, "--cluster", f"127.0.0.1:{head.port}"], env=head.environment)
    try:
        with Lab.open(tmp_path) as lab:
            wait_for(lambda: lab.cluster() is not None, 120)
            head.kill()
            head.start()
            (row,) = lab.wait(lab.submit(small_spec(lab)), timeout=240)
            assert row.status == "completed", row.status_reason
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=60) == 0
    finally:
        up.kill()

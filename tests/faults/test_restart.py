"""The whole lab as a user starts it: dashboard and worker are killed, and nothing is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from chimeralab import Lab
from chimeralab.scheduling.cluster import stop_embedded
from chimeralab.scheduling.home import Home
from fresh_store import fresh_store_url
from small_runs import curve_of, small_spec

pytestmark = [pytest.mark.cluster, pytest.mark.either_store]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_embedded(Home.open(tmp_path))


def start_dashboard(home: Path, store: str) -> tuple[subprocess.Popen, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from chimeralab.cli import main; main()", "up", "--port", str(port), "--cpus=2"]
    process = subprocess.Popen([*command, "--home", str(home), "--store", store])
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{url}/api/v1/runs", timeout=5)
            return process, url
        except OSError:
            assert process.poll() is None, "the dashboard did not start"
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(0.2)


def test_dashboard_and_worker_are_killed_and_the_curve_is_the_undisturbed_one(home: Path) -> None:
    store = fresh_store_url(home)
    train = {"steps": 300, "log_every": 1, "eval_every": 50, "checkpoint_every": 20, "sample_tokens": 0}
    dashboard, _ = start_dashboard(home, store)
    with Lab.open(home, store=store) as lab:
        calm = lab.submit(small_spec(lab, name="calm", train=train))
        lab.wait(calm, timeout=240)
        run = lab.submit(small_spec(lab, name="disturbed", train=train))
        while lab.run(run).step < 50:
            time.sleep(0.02)
        os.kill(dashboard.pid, signal.SIGKILL)
        os.kill(lab.attempts(run)[-1].worker["pid"], signal.SIGKILL)
        dashboard.wait()
        again, url = start_dashboard(home, store)
        try:
            (row,) = lab.wait(run, timeout=240)
            assert (row.status, row.attempt) == ("completed", 2), row.status_reason
            assert curve_of(lab, run) == curve_of(lab, calm)
            assert urllib.request.urlopen(f"{url}/api/v1/runs", timeout=5).status == 200
        finally:
            again.send_signal(signal.SIGINT)
            assert again.wait(timeout=60) == 0

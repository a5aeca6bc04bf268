"""The embedded Ray head: one that dies while it starts is started again; all processes of a home share it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chimeralab.scheduling.cluster import START_TRIES, Cluster, Head, _write, stop_embedded
from chimeralab.scheduling.home import Home
from chimeralab.scheduling.users import Use


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


USER = """
import sys
from chimeralab import Lab
lab = Lab.open(sys.argv[1], cluster="embedded", cpus=1)
print(lab.cluster_connection.pid, flush=True)
sys.stdin.readline()
lab.close()
"""


def user(home: Path) -> subprocess.Popen[str]:
    """A process that uses the home's cluster until it is told to leave; its first line is the head's process."""
    program = [sys.executable, "-c", USER, str(home)]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.cluster
def test_processes_that_open_a_home_at_once_share_a_cluster_and_the_last_one_ends_it(tmp_path: Path) -> None:
    users = [user(tmp_path) for _ in range(2)]
    try:
        heads = [int(process.stdout.readline()) for process in users if process.stdout]
        assert heads[0] == heads[1]
        first, last = users
        assert first.communicate("leave\n", timeout=60) is not None
        assert psutil.pid_exists(heads[0])
        assert last.communicate("leave\n", timeout=60) is not None
        assert not psutil.pid_exists(heads[0])
    finally:
        for process in users:
            process.kill()
        stop_embedded(Home.open(tmp_path))


def test_only_the_last_user_of_a_home_is_told_so(tmp_path: Path) -> None:
    uses = [Use(tmp_path / "users") for _ in range(3)]
    assert [use.end() for use in uses] == [False, False, True]


def test_clusters_of_one_home_have_names_of_their_own_in_the_store(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    own, other, third = Cluster(home, "127.0.0.1:1", 7), Cluster(home, "head:6379"), Cluster(home, "head:6380")
    assert own.identity == home.identity
    assert len({own.identity, other.identity, third.identity}) == 3


@pytest.mark.parametrize(
    ("kept", "keep", "others", "lives"),
    [
        (False, False, 0, False),
        (False, False, 1, True),  # the last of them ends it
        (False, True, 0, True),
        (True, False, 0, True),  # somebody wished it before, or it was found without a user
    ],
)
def test_a_cluster_ends_with_its_last_user_unless_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, keep: bool, others: int, lives: bool
) -> None:
    monkeypatch.setattr("ray.shutdown", lambda: None)  # the connection of the whole session
    home = Home.open(tmp_path)
    head = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # ray"])
    try:
        folder = tmp_path / "ray"
        _write(home, Head("127.0.0.1:1", head.pid, str(folder), kept))
        remaining = [Use(home.cluster_users) for _ in range(others)]
        Cluster(home, "127.0.0.1:1", head.pid, Use(home.cluster_users)).leave(keep=keep)
        assert (head.poll() is None) == lives
        assert [use.end() for use in remaining] == [True] * others
    finally:
        head.kill()
        head.wait()

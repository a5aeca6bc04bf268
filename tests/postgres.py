"""A real PostgreSQL server for tests: one for the session, a fresh database for each test.

`new_database_url()` starts the server at its first call; it stops when Python ends. It listens on a Unix
socket in its own temporary folder, so several test sessions do not meet.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import debian

_PATIENCE = 60.0  # seconds for the server to answer
_numbers = itertools.count(1)


class Server:
    """A PostgreSQL server in a temporary folder, run as an ordinary user (it refuses to run as root)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._binaries = find_binaries()
        self._identity = _ordinary_user()
        if self._identity:
            os.chown(folder, self._identity["user"], self._identity["group"])
        self._process: subprocess.Popen[bytes] | None = None
        options = ("--auth=trust", "--username=lab", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run(
            [self._binaries / "initdb", "--pgdata", folder / "data", *options],
            check=True,
            capture_output=True,
            cwd=folder,
            **self._identity,
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        # fsync only matters for a power cut; a commit survives a killed server without it.
        settings = (
            "listen_addresses=",
            "fsync=off",
            "max_connections=200",
            f"unix_socket_directories={self.folder}",
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", *(f"--{one}" for one in settings)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._identity,
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_text = (self.folder / "log").read_text()
                    raise RuntimeError(f"PostgreSQL did not start:\n{log_text}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT closes the connections first, SIGKILL is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE)
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql://lab@/{database}?host={self.folder}"

    def new_database_url(self) -> str:
        """Create an empty database and return its URL."""
        name = f"lab_{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # our own name
        return self.url(name)


@contextmanager
def running_server() -> Iterator[Server]:
    """A server of one's own, for tests that stop or kill it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def session_server() -> Server:
    """The server that the tests of this session share."""
    running = running_server()
    server = running.__enter__()
    atexit.register(running.__exit__, None, None, None)
    return server


def new_database_url() -> str:
    """The URL of a fresh, empty database on the session's server."""
    return session_server().new_database_url()


def find_binaries() -> Path:
    """The folder of initdb and postgres; as root, Debian's package is installed when there is none."""
    if found := _installed():
        return found
    debian.install("postgresql", "pg_ctlcluster", "--no-install-recommends")
    if found := _installed():
        return found
    raise RuntimeError("these tests need PostgreSQL: put its initdb and postgres on PATH")


def _installed() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def _ordinary_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

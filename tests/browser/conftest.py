"""A real Chromium against a real dashboard. Every page that a test opens must keep to this host and log no error."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

import debian
from chimeralab import Lab
from chimeralab_webui.app import make_app

# One process draws; nothing that a browser does on its own account may look like a request of the page.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP = {"width": 1440, "height": 1000}
expect.set_options(timeout=30_000)  # a page takes 2 s; on a machine that also trains, many times that


def find_chromium() -> str | None:
    """The path of an installed Chromium; installs Debian's when there is none and this is root; None: Playwright's."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        debian.install("chromium", "chromium")
        found = shutil.which("chromium")
    if found is None:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page, watched: no request leaves the host, and the console holds no error."""
    context = browser.new_context(viewport=DESKTOP)
    opened = context.new_page()
    outside: list[str] = []
    errors: list[str] = []
    local = ("http://127.0.0.1:", "data:", "blob:")
    opened.on("request", lambda request: None if request.url.startswith(local) else outside.append(request.url))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not outside, f"requests left the host: {outside}"
    assert not errors, f"errors in the console: {errors}"


@contextmanager
def serving(lab: Lab) -> Iterator[str]:
    """The address of a dashboard of `lab`, served in this process."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(lab), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        sock.close()


@pytest.fixture(scope="session")
def dashboard(lab: Lab) -> Iterator[str]:
    """The dashboard of the session's lab, whose cluster trains."""
    with serving(lab) as address:
        yield address


@pytest.fixture(scope="session")
def quiet_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab without a cluster: what is submitted waits."""
    home = tmp_path_factory.mktemp("quiet")
    with Lab.open(home) as opened:
        yield opened


@pytest.fixture(scope="session")
def quiet_dashboard(quiet_lab: Lab) -> Iterator[str]:
    with serving(quiet_lab) as address:
        yield address


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: into the documentation when CHIMERALAB_SCREENSHOTS=1."""
    if os.environ.get("CHIMERALAB_SCREENSHOTS") != "1":
        return tmp_path
    folder = Path(__file__).parents[2] / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

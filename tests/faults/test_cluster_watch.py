"""What a dashboard does when it does not hear of its cluster."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chimeralab import Lab
from chimeralab.cli import serve
from chimeralab.errors import ClusterError, StoreError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.1)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("quick")
def test_a_dashboard_ends_when_its_cluster_cannot_be_reached_again(tmp_path: Path) -> None:
    with Lab.open(tmp_path) as lab, pytest.raises(ClusterError, match=r"127\.0\.0\.1:1: nobody answers"):
        serve._serve(lab, "127.0.0.1", 0, lambda: lab.connect("127.0.0.1:1"))


@pytest.mark.usefixtures("quick")
def test_a_dashboard_ends_with_whatever_ended_the_watch_over_its_cluster(tmp_path: Path) -> None:
    def connect() -> None:
        raise OSError("No space left on device")

    with Lab.open(tmp_path) as lab, pytest.raises(OSError, match="No space left"):
        serve._serve(lab, "127.0.0.1", 0, connect)


@pytest.mark.usefixtures("quick")
def test_a_store_that_is_away_is_told_of_once_and_counts_as_no_silence(capsys: pytest.CaptureFixture[str]) -> None:
    over, calls = threading.Event(), list[str]()
    away, silent, alive = StoreError("connection refused", place="store"), None, SimpleNamespace(alive=True)
    heard: list[Any] = [silent, away, away, silent, alive, away, silent, silent, over]

    def cluster() -> Any:
        found = heard.pop(0)
        if found is over:
            over.set()
        if isinstance(found, Exception):
            raise found
        return None if found is over else found

    serve._keep_cluster(SimpleNamespace(cluster=cluster), lambda: calls.append(f"{len(heard)} to come"), over)
    assert calls == ["1 to come"]
    assert capsys.readouterr().err.count("the store is away") == 2

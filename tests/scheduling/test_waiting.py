"""Waiting for a run goes on through an outage of the database, though not for ever."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from chimeralab import Lab, waiting
from chimeralab.store import StoreUnavailable
from postgres import running_server
from small_runs import small_spec


def test_a_wait_goes_on_when_the_database_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server, Lab.open(tmp_path, store=server.new_database_url()) as lab:
        run = lab.submit(small_spec(lab))

        def outage() -> None:
            server.stop()
            while "the store is away" not in caplog.text:
                time.sleep(0.05)
            server.start()
            lab.cancel(run)

        breaking = threading.Thread(target=outage)
        breaking.start()
        with caplog.at_level(logging.WARNING, logger="chimeralab.waiting"):
            (row,) = lab.wait(run, timeout=60, poll=0.05)
        breaking.join()
        assert row.status == "cancelled"
        assert caplog.text.count("the store is away") == 1


def test_a_wait_ends_when_the_database_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AWAY_SECONDS", 0.3)
    with running_server() as server, Lab.open(tmp_path, store=server.new_database_url()) as lab:
        run = lab.submit(small_spec(lab))
        server.stop()
        with pytest.raises(StoreUnavailable, match="Check that the server runs"):
            lab.wait(run, poll=0.05)
        server.start()


def test_a_wait_without_a_cluster_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0.3)
    with Lab.open(tmp_path) as lab:
        run = lab.submit(small_spec(lab))

        def beat_and_fall_silent(_: object) -> None:
            if time.monotonic() < end:
                lab.store.heartbeat("here", "127.0.0.1:1", {})

        end = time.monotonic() + 0.6
        with pytest.raises(TimeoutError):
            lab.wait(run, timeout=0.5, poll=0.05, watch=beat_and_fall_silent)
        assert "no cluster has been heard of" not in caplog.text
        with pytest.raises(TimeoutError):
            lab.wait(run, timeout=1.5, poll=0.05, watch=beat_and_fall_silent)
        assert caplog.text.count("no cluster has been heard of") == 1

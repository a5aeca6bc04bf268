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

"""What was acknowledged is there: after a killed writer, a killed server, and for readers meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from samples import curve, new_run, points, running

import postgres
from chimeralab.store import Store, StoreUnavailable

WRITER = """
import sys
from chimeralab.events import Metrics
from chimeralab.store import Store
store, run_id = Store.open(sys.argv[1]), int(sys.argv[2])
for batch in range(1_000_000):
    first = batch * 20 + 1
    events = [
        Metrics(seq=seq, step=seq, tokens=seq, seconds=seq, values={"loss": 1 / seq})
        for seq in range(first, first + 20)
    ]
    print(store.append(run_id, 1, events).last, flush=True)
"""


def test_killed_writer_loses_no_acknowledged_batch(store: Store) -> None:
    run_id = running(store)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, store.url, str(run_id)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    heard = [writer.stdout.readline() for _ in range(15)]
    writer.send_signal(signal.SIGKILL)
    heard += writer.stdout.readlines()
    writer.wait()
    acknowledged = int(heard[-1])

    written = points(store, run_id)
    assert len(written) >= acknowledged
    assert len(written) % 20 == 0  # whole batches only
    assert written == [(step, 1 / step) for step in range(1, len(written) + 1)]
    assert store.attempts(run_id)[0].last_seq == len(written)
    assert store.summaries([run_id])[run_id]["loss"].step == len(written)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.running_server() as server:
        yield server


def test_killed_server_loses_no_acknowledged_batch(server: postgres.Server) -> None:
    store = Store.open(server.new_database_url())
    run_id = running(store)
    store.append(run_id, 1, curve({1: 3.0, 2: 2.0}))

    server.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        store.append(run_id, 1, curve({3: 1.0}, first_seq=3))
    server.start()

    assert store.append(run_id, 1, curve({3: 1.0}, first_seq=3)).last == 3
    assert points(store, run_id) == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_restarted_server_is_not_noticed(server: postgres.Server) -> None:
    store = Store.open(server.new_database_url())
    run_id = running(store)
    server.stop()
    server.start()
    assert store.run(run_id).status == "running"
    assert store.append(run_id, 1, curve({1: 3.0})).last == 1


def test_many_threads_write_their_runs_through_one_store(store: Store) -> None:
    run_ids = [running(store, f"run {number}") for number in range(8)]

    def work(run_id: int) -> None:
        for seq in range(1, 11):
            store.append(run_id, 1, curve({seq: 1.0}, f"metric {seq * run_id % 7}", first_seq=seq))
        store.finish(run_id, 1, "completed")

    threads = [threading.Thread(target=work, args=[run_id]) for run_id in run_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [store.attempts(run_id)[0].last_seq for run_id in run_ids] == [10] * 8
    assert {store.run(run_id).status for run_id in run_ids} == {"completed"}


def test_reader_is_not_held_up_by_a_writer(store: Store) -> None:
    run_id = store.create_run(new_run())
    with store._database.writing() as connection:
        connection.exec_driver_sql("UPDATE runs SET name = 'renamed'")
        assert store.run(run_id).name == "baseline"
    assert store.run(run_id).name == "renamed"

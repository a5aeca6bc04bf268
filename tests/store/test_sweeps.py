"""Sweeps in the store: what is queued, what is adopted, how a sweep goes on and ends."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from samples import curve, new_run, running
from sqlalchemy import MetaData, create_engine

from chimeralab.errors import RequestError
from chimeralab.store import NewMember, Now, RunFilter, Store
from chimeralab.store.migrate import MIGRATIONS
from chimeralab.store.transitions import again, locked, move


def members(*hashes: str, seed: int = 0) -> list[NewMember]:
    return [NewMember({"lr": spec_hash}, seed, new_run(spec_hash, spec_hash=spec_hash)) for spec_hash in hashes]


def put(store: Store, *hashes: str, name: str = "lr", **more: Any) -> int:
    return store.put_sweep(name, {"axes": list(hashes)}, members(*hashes), wanted=len(hashes), **more).id


def end(store: Store, run_id: int, status: Any = "completed") -> None:
    attempt = store.claim(run_id, store.run(run_id).attempt)
    assert attempt is not None
    store.begin(run_id, attempt, {})
    if status == "cancelled":
        store.request_cancel(run_id)
    store.finish(run_id, attempt, status, "")


def runs_of(store: Store, sweep: int) -> list[int]:
    return [member.run_id for member in store.sweep_members(sweep)]


def test_a_new_sweep_queues_all_its_members_in_order(store: Store) -> None:
    sweep = put(store, "a", "b", "c")
    found = store.sweep_members(sweep)
    assert [(m.number, m.point, m.status, m.owned) for m in found] == [
        (number, {"lr": name}, "queued", True) for number, name in enumerate("abc")
    ]
    assert [run.sweep for run in store.queued()] == [sweep] * 3
    row = store.sweep("lr")
    assert (row.id, row.status, row.members, row.spec) == (sweep, "active", {"queued": 3}, {"axes": ["a", "b", "c"]})
    assert store.runs(RunFilter(sweep="lr")).total == 3


def test_what_was_computed_before_is_adopted_across_sweeps(store: Store) -> None:
    alone = running(store, "alone", spec_hash="a")
    store.finish(alone, 1, "completed")
    first = put(store, "a", "b")
    second = put(store, "b", "a", "c", name="other")
    assert runs_of(store, first)[0] == alone
    assert runs_of(store, second)[:2] == runs_of(store, first)[::-1]
    assert [m.owned for m in store.sweep_members(second)] == [False, False, True]
    assert store.runs().total == 3


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_did_not_come_to_its_end_elsewhere_is_queued_anew(store: Store, status: str) -> None:
    other = store.create_run(new_run(spec_hash="a"))
    end(store, other, status)
    assert runs_of(store, put(store, "a")) != [other]


def test_sweeps_that_are_put_at_the_same_instant_share_their_runs(url: str) -> None:
    hashes = [f"h{number}" for number in range(12)]
    names = [f"s{number}" for number in range(6)]
    stores = [Store.open(url) for _ in names]
    together = threading.Barrier(len(names))

    def put_one(store: Store, name: str) -> list[int]:
        together.wait(timeout=30)
        return runs_of(store, put(store, *hashes, name=name))

    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(put_one, stores, names))
    assert [runs == found[0] for runs in found] == [True] * len(names)
    assert stores[0].runs().total == len(hashes)
    for store in stores:
        store.close()


def test_archived_runs_are_not_adopted(store: Store) -> None:
    old = store.create_run(new_run(spec_hash="a"))
    end(store, old)
    store.archive([old])
    assert runs_of(store, put(store, "a")) != [old]


def test_a_sweep_put_again_goes_on_and_repeats_nothing_that_finished(store: Store) -> None:
    sweep = put(store, "a", "b", "c", "d")
    done, failed, pruned, waiting = runs_of(store, sweep)
    end(store, done)
    end(store, failed, "failed")
    attempt = store.claim(pruned, 0)
    assert attempt is not None
    assert store.request_prune(pruned, attempt, "not among the best")
    store.finish(pruned, attempt, "cancelled", "cancelled by its user")
    assert put(store, "a", "b", "c", "d") == sweep
    assert runs_of(store, sweep) == [done, failed, pruned, waiting]
    assert [m.status for m in store.sweep_members(sweep)] == ["completed", "queued", "pruned", "queued"]
    assert store.run(pruned).status_reason == "not among the best"
    assert all(m.owned for m in store.sweep_members(sweep))


def test_a_changed_sweep_keeps_what_it_shares_and_cancels_what_it_drops(store: Store) -> None:
    sweep = put(store, "a", "b")
    a, b = runs_of(store, sweep)
    assert put(store, "b", "c") == sweep
    kept, new = runs_of(store, sweep)
    assert (kept, store.run(a).status, store.run(b).status) == (b, "cancelled", "queued")
    assert new not in (a, b)


def test_two_points_that_compute_the_same_share_a_run(store: Store) -> None:
    sweep = put(store, "a", "a")
    first, second = store.sweep_members(sweep)
    assert (first.run_id, first.owned, second.owned) == (second.run_id, True, False)
    assert [run.id for run in store.queued()] == [first.run_id]


def test_a_sweep_completes_when_it_has_all_its_members_and_all_have_ended(store: Store) -> None:
    sweep = store.put_sweep("lr", {}, members("a", "b"), wanted=3).id
    for run_id, status in zip(runs_of(store, sweep), ("completed", "failed"), strict=True):
        assert not store.settle_sweep(sweep)
        end(store, run_id, status)
    assert not store.settle_sweep(sweep)
    assert store.add_members(sweep, members("c"))
    assert [m.number for m in store.sweep_members(sweep)] == [0, 1, 2]
    end(store, runs_of(store, sweep)[2])
    assert store.settle_sweep(sweep)
    assert store.sweep("lr").status == "completed"
    assert not store.add_members(sweep, members("d"))
    assert [row.name for row in store.sweeps("completed")] == ["lr"]
    assert store.sweeps("active") == []


def test_a_cancelled_sweep_ends_its_own_runs_and_leaves_adopted_ones(store: Store) -> None:
    other = store.create_run(new_run("other's", spec_hash="a"))
    sweep = put(store, "a", "b", "c")
    _, going, waiting = runs_of(store, sweep)
    store.claim(going, 0)
    store.end_sweep(sweep, "cancelled")
    assert (store.run(other).status, store.run(waiting).status) == ("queued", "cancelled")
    assert store.run(going).cancel_requested
    assert store.sweep(sweep).status == "cancelled"


def test_a_member_that_still_stops_when_its_sweep_goes_on_is_queued_again(store: Store) -> None:
    sweep = put(store, "a", "b")
    told, not_yet = runs_of(store, sweep)
    for run in (told, not_yet):
        store.begin(run, store.claim(run, 0), {})
    store.end_sweep(sweep, "cancelled")
    put(store, "a", "b")
    assert store.finish(told, 1, "cancelled", "cancelled by its user") == Now("queued", "")
    assert store.finish(told, 1, "cancelled", "cancelled by its user") is None  # its answer was lost: it says it again
    assert (store.run(told).status, store.run(told).attempt, store.run(told).max_attempts) == ("queued", 1, 3)
    assert store.finish(not_yet, 1, "completed") == Now("completed", "")
    assert store.sweep(sweep).members == {"queued": 1, "completed": 1}
    store.request_cancel(told)  # by its user, in a sweep that goes on
    assert store.run(told).status == "cancelled"


def test_a_run_that_still_stops_is_not_adopted_by_another_sweep(store: Store) -> None:
    first = put(store, "a")
    (stopping,) = runs_of(store, first)
    store.begin(stopping, store.claim(stopping, 0), {})
    store.end_sweep(first, "cancelled")
    second = put(store, "a", name="other")
    assert stopping not in runs_of(store, second)
    assert store.finish(stopping, 1, "cancelled") == Now("cancelled", "")


def test_what_another_active_sweep_has_goes_on_as_its_own_when_a_sweep_ends(store: Store) -> None:
    first = put(store, "a", "b", "c")
    going, waiting, alone = runs_of(store, first)
    second = put(store, "a", "b", name="other")
    store.claim(going, 0)
    store.end_sweep(first, "cancelled")
    assert (store.run(waiting).status, store.run(alone).status) == ("queued", "cancelled")
    assert not store.run(going).cancel_requested
    assert [m.owned for m in store.sweep_members(first)] == [False, False, True]
    assert [m.owned for m in store.sweep_members(second)] == [True, True]
    assert [run.sweep for run in store.queued()] == [second]
    store.end_sweep(second, "cancelled")  # nobody else has them now
    assert store.run(going).cancel_requested
    assert store.run(waiting).status == "cancelled"


def test_what_another_active_sweep_has_goes_on_when_a_sweep_drops_it(store: Store) -> None:
    sweep = put(store, "a", "b")
    a, b = runs_of(store, sweep)
    other = put(store, "a", name="other")
    put(store, "c")
    assert (store.run(a).status, store.run(b).status) == ("queued", "cancelled")
    assert [m.owned for m in store.sweep_members(other)] == [True]


def test_a_sweep_that_is_put_again_leaves_alone_what_was_claimed_meanwhile(url: str) -> None:
    store, another = Store.open(url), Store.open(url)
    (run_id,) = runs_of(store, put(store, "a"))
    end(store, run_id, "failed")
    halfway = threading.Event()

    def try_again_and_claim() -> None:
        with another._database.writing() as connection:
            run = locked(connection, run_id)
            again(connection, run)
            move(connection, run_id, run.attempt, "queued", "starting", attempt=run.attempt + 1)
            halfway.set()
            time.sleep(0.5)  # the other one has read by then, and waits for our lock

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(try_again_and_claim)
        halfway.wait(timeout=30)
        put(store, "a")
        other.result()
    assert (store.run(run_id).status, store.run(run_id).attempt) == ("starting", 2)
    another.close()
    store.close()


def test_only_the_active_sweep_that_queued_a_run_owns_it(store: Store) -> None:
    first = put(store, "a")
    put(store, "a", name="other")
    (run_id,) = runs_of(store, first)
    owner = store.owner(run_id)
    assert owner is not None
    assert (owner.id, owner.spec) == (first, {"axes": ["a"]})
    assert store.owner(store.create_run(new_run("alone"))) is None
    end(store, run_id)
    store.settle_sweep(first)
    assert store.owner(run_id) is None


def test_queue_passes_over_sweeps_that_have_enough(store: Store) -> None:
    sweep = put(store, *map(str, range(5)))
    alone = store.create_run(new_run("alone"))
    assert [run.id for run in store.queued(limit=2, passing_over=[sweep])] == [alone]
    assert len(store.queued(passing_over=[sweep + 1])) == 6


def test_a_run_of_an_older_attempt_is_not_pruned(store: Store) -> None:
    run_id = running(store)
    assert not store.request_prune(run_id, 2, "late")
    assert store.request_prune(run_id, 1, "worse")
    assert not store.request_prune(run_id, 1, "again")
    assert store.requeue(run_id, 1, "the worker was lost").status == "pruned"
    assert (store.run(run_id).status, store.run(run_id).status_reason) == ("pruned", "worse")
    store.retry(run_id)
    assert (store.run(run_id).status, store.run(run_id).cancel_requested) == ("queued", False)


def test_an_active_run_names_its_worker_and_its_sweep(store: Store) -> None:
    sweep = put(store, "a")
    (run_id,) = runs_of(store, sweep)
    store.claim(run_id, 0, "here", worker={"name": "worker-7"})
    (active,) = store.active()
    assert (active.worker, active.sweep, active.cluster) == ({"name": "worker-7"}, sweep, "here")


def test_curves_of_a_sweep_are_those_of_its_members_adopted_ones_too(store: Store) -> None:
    alone = running(store, "alone", spec_hash="a")
    store.append(alone, 1, curve({1: 0.5}))
    store.finish(alone, 1, "completed")
    sweep = put(store, "a", "b")
    assert store.sweep_curves(sweep, "loss") == {alone: [(1, 0.5)], runs_of(store, sweep)[1]: []}


def test_curves_of_a_sweep_come_in_the_order_of_steps(store: Store) -> None:
    sweep = put(store, "a", "b")
    first, second = runs_of(store, sweep)
    attempt = store.claim(first, 0)
    assert attempt is not None
    store.append(first, attempt, curve({1: 0.5, 2: math.nan, 3: 0.25}))
    found = store.sweep_curves(sweep, "loss")
    assert repr(found) == repr({first: [(1, 0.5), (2, math.nan), (3, 0.25)], second: []})
    assert store.sweep_curves(sweep, "nobody measured this") == {first: [], second: []}


def test_an_unknown_sweep_is_named(store: Store) -> None:
    put(store, "a", name="learning-rate")
    with pytest.raises(
        RequestError, match=r"sweep 'learning-rat': there is no such sweep\. did you mean 'learning-rate'"
    ):
        store.sweep("learning-rat")


def test_a_database_of_the_first_schema_keeps_its_runs(url: str) -> None:
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "0001")
        tables = MetaData()
        tables.reflect(connection)
        connection.execute(tables.tables["projects"].insert().values(id=1, name="p"))
        values = {"id": 1, "project_id": 1, "name": "old", "status": "queued", "spec": "{}", "resources": "{}"}
        runs = tables.tables["runs"]
        empty = {column.name: column.type.python_type() for column in runs.columns if not column.nullable}
        connection.execute(runs.insert().values(**empty | values))
    store = Store.open(url)
    assert [run.sweep for run in store.queued()] == [None]
    assert store.request_cancel(1) == "cancelled"
    assert store.run(1).name == "old"
    store.close()

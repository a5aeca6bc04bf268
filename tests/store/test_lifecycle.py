"""How a run travels through its states, and who is refused on the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from samples import curve, new_run, points, running

from chimeralab.errors import RequestError, StaleAttempt, StoreError
from chimeralab.events import Metrics
from chimeralab.store import Appended, Now, PluginRow, Store


def statuses(store: Store, run_id: int) -> list[tuple[str | None, str, int]]:
    events = store.events(run_id, kinds=["status"])
    return [(event.payload["from"], event.payload["to"], event.payload["attempt"]) for event in events]


def test_created_run_waits_with_all_it_was_given(store: Store) -> None:
    run_id = store.create_run(
        new_run(tags=("long", "a100"), notes="first try", plugins=[("mamba2", "0.1", "chimeralab")])
    )

    run = store.run(run_id)
    assert (run.status, run.attempt, run.max_attempts) == ("queued", 0, 2)
    assert (run.name, run.project, run.task, run.total_steps) == ("baseline", "tests", "copying", 100)
    assert (run.spec, run.resources) == ({"stack": {"width": 64}}, {"gpus": 0.5})
    assert (run.tags, run.notes) == (("a100", "long"), "first try")
    assert store.plugins(run_id) == [PluginRow("mamba2", "0.1", "chimeralab")]
    assert store.projects() == ["tests"]


def test_queue_gives_the_oldest_first(store: Store) -> None:
    first, second, third = (store.create_run(new_run(name)) for name in ("a", "b", "c"))
    store.claim(second, 0)
    assert [run.id for run in store.queued()] == [first, third]
    assert [run.id for run in store.queued(limit=1)] == [first]
    assert [run.id for run in store.queued(after_id=first)] == [third]
    assert store.queued()[0].resources == {"gpus": 0.5}


def test_undisturbed_run_passes_every_status_once(store: Store) -> None:
    run_id = running(store)
    store.finish(run_id, 1, "completed")

    run = store.run(run_id)
    assert run.status == "completed"
    assert run.started_at is not None
    assert run.ended_at is not None
    assert run.created_at <= run.started_at <= run.ended_at
    assert statuses(store, run_id) == [
        (None, "queued", 0),
        ("queued", "starting", 1),
        ("starting", "running", 1),
        ("running", "completed", 1),
    ]
    (attempt,) = store.attempts(run_id)
    assert (attempt.outcome, attempt.worker) == ("completed", {"host": "here"})


def test_only_one_of_many_dispatchers_wins_a_run(store: Store) -> None:
    run_ids = [store.create_run(new_run()) for _ in range(5)]
    barrier = threading.Barrier(8)

    def dispatch(_: int) -> list[int]:
        barrier.wait()
        return [run_id for run_id in run_ids if store.claim(run_id, 0) is not None]

    with ThreadPoolExecutor(8) as threads:
        won = [run_id for runs in threads.map(dispatch, range(8)) for run_id in runs]

    assert sorted(won) == run_ids
    assert [len(store.attempts(run_id)) for run_id in run_ids] == [1] * 5


def test_claim_of_an_older_attempt_is_lost(store: Store) -> None:
    run_id = running(store)
    store.requeue(run_id, 1, "worker lost")
    assert store.claim(run_id, 0) is None
    assert store.claim(run_id, 1) == 2


def test_lost_worker_sends_the_run_back_to_the_queue(store: Store) -> None:
    run_id = running(store)
    assert store.requeue(run_id, 1, "the node went away").status == "queued"

    run = store.run(run_id)
    assert (run.status, run.status_reason, run.ended_at) == ("queued", "the node went away", None)
    assert store.attempts(run_id)[0].outcome == "lost"


def test_run_fails_when_its_last_attempt_is_lost(store: Store) -> None:
    run_id = running(store, max_attempts=1)
    assert store.requeue(run_id, 1, "the node went away").status == "failed"
    assert store.run(run_id).ended_at is not None


def test_lost_run_that_should_stop_is_cancelled(store: Store) -> None:
    run_id = running(store)
    assert store.request_cancel(run_id) == "running"
    assert store.active()[0].cancel_requested
    assert store.requeue(run_id, 1, "the node went away").status == "cancelled"


def test_attempt_is_requeued_only_once(store: Store) -> None:
    run_id = running(store)
    store.requeue(run_id, 1, "lost")
    with pytest.raises(StaleAttempt):
        store.requeue(run_id, 1, "lost")


def test_worker_of_an_older_attempt_can_write_nothing(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: 3.0}))
    store.requeue(run_id, 1, "worker lost")
    store.claim(run_id, 1)
    store.begin(run_id, 2, {"host": "there"})

    with pytest.raises(StaleAttempt, match=rf"run {run_id}: .*attempt 1 is refused.*running, attempt 2"):
        store.append(run_id, 1, curve({2: 2.0}, first_seq=2))
    with pytest.raises(StaleAttempt):
        store.finish(run_id, 1, "completed")
    with pytest.raises(StaleAttempt):
        store.begin(run_id, 1, {"host": "here"})
    assert points(store, run_id) == [(1, 3.0)]
    assert store.run(run_id).status == "running"


def test_finished_run_takes_no_more_events(store: Store) -> None:
    run_id = running(store)
    store.finish(run_id, 1, "failed", "loss is NaN at step 7")
    with pytest.raises(StaleAttempt):
        store.append(run_id, 1, curve({1: 3.0}))
    assert store.run(run_id).status_reason == "loss is NaN at step 7"


def test_what_is_measured_on_a_finished_run_is_kept_and_may_be_measured_again(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: 3.0}))
    store.finish(run_id, 1, "completed")
    for accuracy in (0.25, 0.5):
        store.record(run_id, Metrics(step=7, tokens=70, seconds=2.0, values={"lm_eval/mice/acc": accuracy}))
    assert points(store, run_id, "lm_eval/mice/acc") == [(7, 0.5)]
    assert store.summaries([run_id])[run_id]["lm_eval/mice/acc"].last == 0.5
    assert points(store, run_id) == [(1, 3.0)]
    assert store.run(run_id).status == "completed"
    with pytest.raises(RequestError, match="there is no such run"):
        store.record(run_id + 1, Metrics(step=7, tokens=70, seconds=2.0, values={"lm_eval/mice/acc": 1.0}))


def test_begin_and_finish_may_be_said_again_and_tell_what_is_new(store: Store) -> None:
    run_id = store.create_run(new_run())
    store.claim(run_id, 0)
    assert [store.begin(run_id, 1, {"host": "here"}) for _ in range(2)] == [True, False]
    ends = [store.finish(run_id, 1, "failed", "the loss is nan") for _ in range(2)]
    assert ends == [Now("failed", "the loss is nan"), None]
    assert len(statuses(store, run_id)) == 4


def test_a_run_that_its_sweep_stopped_ends_as_pruned_whatever_its_worker_calls_it(store: Store) -> None:
    run_id = running(store)
    store.request_prune(run_id, 1, "not among the best")
    assert store.finish(run_id, 1, "cancelled", "cancelled by its user") == Now("pruned", "not among the best")


def test_a_batch_that_is_sent_again_tells_what_is_new(store: Store) -> None:
    run_id = running(store)
    first, second = curve({1: 3.0, 2: 2.0})
    assert store.append(run_id, 1, [first]) == Appended(1, [first])
    assert store.append(run_id, 1, [first, second]) == Appended(2, [second])


def test_second_worker_cannot_begin_the_same_attempt(store: Store) -> None:
    run_id = running(store)
    with pytest.raises(StaleAttempt):
        store.begin(run_id, 1, {"host": "there"})


def test_queued_run_is_cancelled_at_once(store: Store) -> None:
    run_id = store.create_run(new_run())
    assert store.request_cancel(run_id) == "cancelled"
    assert store.claim(run_id, 0) is None


def test_finished_run_cannot_be_cancelled(store: Store) -> None:
    run_id = running(store)
    store.finish(run_id, 1, "completed")
    with pytest.raises(StoreError, match="the run is completed"):
        store.request_cancel(run_id)


def test_retried_run_keeps_its_points_and_gets_its_attempts_again(store: Store) -> None:
    run_id = running(store, max_attempts=2)
    store.append(run_id, 1, curve({1: 3.0}))
    store.request_cancel(run_id)
    store.finish(run_id, 1, "cancelled")

    store.retry(run_id)

    run = store.run(run_id)
    assert (run.status, run.attempt, run.max_attempts, run.cancel_requested) == ("queued", 1, 3, False)
    assert run.ended_at is None
    assert points(store, run_id) == [(1, 3.0)]


def test_only_a_run_that_ended_badly_can_be_retried(store: Store) -> None:
    run_id = running(store)
    with pytest.raises(StoreError, match="the run is running"):
        store.retry(run_id)


def test_held_run_says_why_and_stays_in_the_queue(store: Store) -> None:
    run_id = store.create_run(new_run())
    store.hold(run_id, "waits for 4 GPUs, the cluster has 2")
    assert store.run(run_id).status_reason == "waits for 4 GPUs, the cluster has 2"
    assert [run.status_reason for run in store.queued()] == ["waits for 4 GPUs, the cluster has 2"]
    assert store.claim(run_id, 0) == 1
    assert store.run(run_id).status_reason == ""

    store.hold(run_id, "too late")
    assert store.run(run_id).status_reason == ""


def test_active_lists_what_is_starting_or_running(store: Store) -> None:
    started = running(store)
    claimed, _ = store.create_run(new_run()), store.create_run(new_run())
    store.claim(claimed, 0)
    assert [(run.id, run.attempt, run.status) for run in store.active()] == [
        (started, 1, "running"),
        (claimed, 1, "starting"),
    ]


def test_active_run_tells_whether_its_cluster_is_alive(store: Store) -> None:
    run_id = store.create_run(new_run())
    store.claim(run_id, 0, cluster="here")
    assert [(run.cluster, run.heartbeat_at) for run in store.active()] == [("here", None)]

    for gpus in (1, 2):
        store.heartbeat("here", "ray://head:10001", {"GPU": gpus})

    (cluster,) = store.clusters()
    assert (cluster.name, cluster.address, cluster.resources) == ("here", "ray://head:10001", {"GPU": 2})
    assert store.active()[0].heartbeat_at == cluster.heartbeat_at
    assert store.attempts(run_id)[0].cluster == "here"

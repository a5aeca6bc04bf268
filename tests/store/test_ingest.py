"""What events become: points, summaries, checkpoints, profiles, records; each exactly once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from samples import curve, points, running

from chimeralab.errors import StoreError
from chimeralab.events import Checkpoint, Environment, Log, Metrics, Profile, Progress, Sample
from chimeralab.store import MetricSummary, Store


def resume(store: Store, run_id: int) -> None:
    """Lose the first attempt and begin the second."""
    store.requeue(run_id, 1, "worker lost")
    store.claim(run_id, 1)
    store.begin(run_id, 2, {"host": "there"})


def test_batch_that_is_sent_again_changes_nothing(store: Store) -> None:
    run_id = running(store)
    batch = [*curve({1: 3.0, 2: 2.0}), Log(seq=3, message="hello")]
    assert store.append(run_id, 1, batch).last == 3
    assert store.append(run_id, 1, batch).last == 3
    assert points(store, run_id) == [(1, 3.0), (2, 2.0)]
    assert len(store.events(run_id, kinds=["log"])) == 1


def test_overlapping_batch_adds_only_what_is_new(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: 3.0, 2: 2.0}))
    changed = [event.model_copy(update={"values": {"loss": 9.0}}) for event in curve({1: 0, 2: 0, 3: 0})]
    assert store.append(run_id, 1, changed).last == 3
    assert points(store, run_id) == [(1, 3.0), (2, 2.0), (3, 9.0)]
    assert store.attempts(run_id)[0].last_seq == 3


def test_batch_delivered_by_two_threads_at_once_counts_once(store: Store) -> None:
    run_id = running(store)
    batch = [Log(seq=number, message=str(number)) for number in range(1, 101)]
    with ThreadPoolExecutor(4) as threads:
        appended = list(threads.map(lambda _: store.append(run_id, 1, batch), range(8)))
    assert {found.last for found in appended} == {100}
    assert [len(found.new) for found in appended if found.new] == [100]
    assert [event.seq for event in store.events(run_id, kinds=["log"])] == list(range(1, 101))


def test_unnumbered_event_is_refused(store: Store) -> None:
    run_id = running(store)
    with pytest.raises(ValueError, match="numbered from 1"):
        store.append(run_id, 1, [Log(message="no number")])


def test_resumed_attempt_replaces_the_steps_it_repeats(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: 5.0, 2: 4.0, 3: 0.5}))
    resume(store, run_id)
    store.append(run_id, 2, curve({2: 4.0, 3: 3.0, 4: 2.0}))

    assert points(store, run_id) == [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0)]
    assert store.summaries([run_id])[run_id]["loss"] == MetricSummary(last=2.0, step=4, min=2.0, max=5.0)


def test_summary_of_a_resumed_run_describes_its_points_at_every_moment(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: 5.0, 2: 4.0, 3: 0.5}))
    resume(store, run_id)
    store.append(run_id, 2, curve({2: 9.0}))
    assert store.summaries([run_id])[run_id]["loss"] == MetricSummary(last=0.5, step=3, min=0.5, max=9.0)


@pytest.mark.parametrize("sizes", [[6], [1, 1, 1, 1, 1, 1], [2, 4]])
def test_summary_does_not_depend_on_how_events_are_batched(store: Store, sizes: list[int]) -> None:
    run_id = running(store)
    events = curve({1: math.nan, 2: 4.0, 3: -math.inf, 4: 7.0, 5: math.nan, 6: 1.0})
    for size in sizes:
        store.append(run_id, 1, events[:size])
        events = events[size:]
    assert store.summaries([run_id])[run_id]["loss"] == MetricSummary(last=1.0, step=6, min=-math.inf, max=7.0)


def test_nan_and_infinity_come_back_as_they_went_in(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: math.nan, 2: math.inf, 3: -math.inf, 4: 0.1}))
    assert repr(points(store, run_id)) == "[(1, nan), (2, inf), (3, -inf), (4, 0.1)]"


def test_nan_and_infinity_come_back_from_checkpoints_and_profiles(store: Store) -> None:
    run_id = running(store)
    strange = {"loss": math.nan, "accuracy": math.inf}
    checkpoint = Checkpoint(seq=1, step=5, path="/c", bytes=1, role="newest", metrics=strange)
    store.append(run_id, 1, [checkpoint, Profile(seq=2, name="train", context=64, batch=1, values=strange)])
    assert repr(store.artifacts(run_id)[0].metrics) == repr(strange)
    assert repr(store.profiles([run_id])[0].values) == repr(strange)


def test_curve_of_nan_alone_has_nan_extremes(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({1: math.nan}))
    summary = store.summaries([run_id])[run_id]["loss"]
    assert all(math.isnan(value) for value in (summary.last, summary.min, summary.max))


def test_newest_progress_is_the_one_shown(store: Store) -> None:
    run_id = running(store)
    store.append(
        run_id,
        1,
        [
            Progress(seq=1, step=1, total=100, seconds=1.0, tokens_per_second=10.0),
            Progress(seq=2, step=2, total=100, seconds=2.0, tokens_per_second=20.0, phase="evaluate"),
        ],
    )
    run = store.run(run_id)
    assert (run.step, run.total_steps, run.seconds, run.tokens_per_second) == (2, 100, 2.0, 20.0)
    assert run.phase == "evaluate"


def test_each_role_keeps_its_latest_checkpoint(store: Store) -> None:
    run_id = running(store)
    assert store.artifacts(run_id) == []
    for seq, (step, role) in enumerate([(10, "newest"), (10, "best"), (20, "newest"), (30, "newest")], start=1):
        saved = Checkpoint(seq=seq, step=step, path=f"/run/{step}", bytes=2**40, role=role)
        store.append(run_id, 1, [saved])
    assert [(row.role, row.step, row.path, row.bytes) for row in store.artifacts(run_id)] == [
        ("best", 10, "/run/10", 2**40),
        ("newest", 30, "/run/30", 2**40),
    ]


def test_repeated_profile_replaces_the_earlier_one(store: Store) -> None:
    run_id = running(store)
    measured = [(1, 1024, 9.0), (2, 2048, 8.0), (3, 1024, 7.0)]
    store.append(
        run_id,
        1,
        [Profile(seq=seq, name="decode", context=c, batch=1, values={"ms": ms}) for seq, c, ms in measured],
    )
    assert [(row.context, row.values["ms"]) for row in store.profiles([run_id])] == [(1024, 7.0), (2048, 8.0)]


def test_logs_samples_and_environments_are_kept_in_order(store: Store) -> None:
    run_id = running(store)
    store.append(
        run_id,
        1,
        [
            Environment(seq=1, values={"device": "cpu", "kernels": {"attention": "torch"}}),
            Log(seq=2, level="warning", message="slow"),
            Sample(seq=3, step=5, prompt="Once", text=" upon\0 a \ud800time", image="iVBORw0KGgo="),
        ],
    )
    environment, log, sample = store.events(run_id, kinds=["environment", "log", "sample"])
    assert environment.payload == {"device": "cpu", "kernels": {"attention": "torch"}}
    assert (log.kind, log.seq, log.attempt, log.payload["message"]) == ("log", 2, 1, "slow")
    assert sample.payload == {"step": 5, "prompt": "Once", "text": " upon\0 a \ud800time", "image": "iVBORw0KGgo="}


def test_failed_batch_leaves_nothing_behind(store: Store) -> None:
    run_id = running(store)
    too_large = Metrics(seq=2, step=2**70, tokens=1, seconds=1.0, values={"loss": 1.0})
    with pytest.raises((StoreError, OverflowError)):
        store.append(run_id, 1, [*curve({1: 3.0}), too_large])
    assert points(store, run_id) == []
    assert store.append(run_id, 1, curve({1: 2.0})).last == 1
    assert points(store, run_id) == [(1, 2.0)]

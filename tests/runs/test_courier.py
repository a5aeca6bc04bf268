"""The courier: events reach the store in order and once, whatever breaks on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from chimeralab.errors import StaleAttempt
from chimeralab.events import Event, Log
from chimeralab.scheduling import courier as couriers
from chimeralab.scheduling.courier import Courier

Deliver = Callable[[Sequence[Event]], int]


class Away(Exception):
    """The store does not answer at present."""


class StoreThatNumbers:
    """Holds each event once, by number, as the real one does."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.batches: list[int] = []

    def __call__(self, events: Sequence[Event]) -> int:
        self.batches.append(len(events))
        for event in events:
            if event.seq == len(self.messages) + 1:
                self.messages.append(event.message)
        return len(self.messages)


@pytest.fixture(autouse=True)
def without_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(couriers, "RETRY_SECONDS", 0.01)


@pytest.fixture
def start() -> Iterator[Callable[[Deliver], Courier]]:
    started = []

    def make(deliver: Deliver) -> Courier:
        started.append(Courier(deliver, away=Away))
        return started[-1]

    yield make
    for courier in started:
        courier.close()


def send(courier: Courier, count: int) -> list[str]:
    messages = [f"event {number}" for number in range(count)]
    for message in messages:
        courier.emit(Log(message=message))
    return messages


def test_events_arrive_in_order(start: Callable) -> None:
    store = StoreThatNumbers()
    courier = start(store)
    sent = send(courier, 50)
    courier.flush()
    assert store.messages == sent


def test_events_are_numbered_from_one(start: Callable) -> None:
    courier = start(StoreThatNumbers())
    assert [courier.emit(Log(message="")) for _ in range(3)] == [1, 2, 3]


def test_a_delivery_takes_no_more_than_a_batch(start: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "BATCH", 10)
    store, hold = StoreThatNumbers(), threading.Event()
    courier = start(lambda events: hold.wait() and store(events))
    send(courier, 95)
    hold.set()
    courier.flush()
    assert max(store.batches) == 10
    assert len(store.batches) <= 11


def test_emitting_does_not_wait_for_the_store(start: Callable) -> None:
    store, hold = StoreThatNumbers(), threading.Event()
    courier = start(lambda events: hold.wait() and store(events))
    send(courier, 1000)
    assert courier.acknowledged == 0
    hold.set()


def test_what_the_store_has_is_acknowledged(start: Callable) -> None:
    courier = start(StoreThatNumbers())
    send(courier, 7)
    courier.flush()
    assert courier.acknowledged == 7


def test_while_the_store_is_away_events_wait_and_then_arrive_once(start: Callable) -> None:
    store, failures = StoreThatNumbers(), iter([True] * 5)

    def flaky(events: Sequence[Event]) -> int:
        if next(failures, False):
            raise Away
        return store(events)

    courier = start(flaky)
    sent = send(courier, 20)
    courier.flush()
    assert store.messages == sent


def test_a_store_that_is_away_is_asked_now_and_then(start: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it goes away amid many events, between which the courier does not pause."""
    monkeypatch.setattr(couriers, "BATCH", 1)
    store, asked, enough = StoreThatNumbers(), [], threading.Event()

    def away_after_the_first(events: Sequence[Event]) -> int:
        if store.messages and not enough.is_set():
            asked.append(1)
            raise Away
        return store(events)

    courier = start(away_after_the_first)
    send(courier, 5)
    enough.wait(0.2)
    enough.set()
    courier.flush()
    assert 2 <= len(asked) <= 0.2 / 0.002


def test_events_whose_acknowledgement_was_lost_are_offered_again_and_stored_once(start: Callable) -> None:
    store, lost = StoreThatNumbers(), iter([True])

    def deaf(events: Sequence[Event]) -> int:
        last = store(events)
        if next(lost, False):
            raise Away
        return last

    courier = start(deaf)
    sent = send(courier, 20)
    courier.flush()
    assert store.messages == sent


def test_events_of_which_the_store_took_a_part_are_offered_again_from_there(start: Callable) -> None:
    store = StoreThatNumbers()
    courier = start(lambda events: store(events[:3]))
    sent = send(courier, 20)
    courier.flush()
    assert store.messages == sent


def refuse(error: Exception) -> Deliver:
    def deliver(events: Sequence[Event]) -> int:
        raise error

    return deliver


@pytest.mark.parametrize("error", [StaleAttempt("attempt 2 has begun"), ValueError("no such column")])
def test_an_attempt_that_may_not_write_is_asked_to_stop(start: Callable, error: Exception) -> None:
    courier = start(refuse(error))
    send(courier, 1)
    courier.flush()
    assert courier.stop_requested()


def test_a_stale_attempt_is_told_from_a_broken_one(start: Callable) -> None:
    stale, broken = start(refuse(StaleAttempt("attempt 2 has begun"))), start(refuse(ValueError("no such column")))
    for courier in (stale, broken):
        send(courier, 1)
        courier.flush()
    assert (stale.stale, stale.broken) == (True, None)
    assert (broken.stale, str(broken.broken)) == (False, "no such column")


def test_a_stale_attempt_offers_nothing_more(start: Callable) -> None:
    offered = []

    def stale(events: Sequence[Event]) -> int:
        offered.append(len(events))
        raise StaleAttempt("attempt 2 has begun")

    courier = start(stale)
    send(courier, 1)
    courier.flush()
    send(courier, 5)
    courier.flush()
    assert offered == [1]


def test_a_stop_that_was_requested_is_passed_on(start: Callable) -> None:
    courier = start(StoreThatNumbers())
    assert not courier.stop_requested()
    courier.request_stop()
    assert courier.stop_requested()

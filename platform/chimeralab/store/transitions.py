"""How a run changes its status, and who may: the guards inside the transactions of the store.

queued → starting → running → completed | failed | cancelled | pruned, and back to queued when a worker is lost.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from chimeralab.errors import RequestError, StaleAttempt
from chimeralab.store.models import Attempt, EventRecord, Run
from chimeralab.store.rows import Status


def move(
    connection: Connection,
    run_id: int,
    last_attempt: int,
    start: Status,
    end: Status,
    reason: str = "",
    **values: Any,
) -> bool:
    """Compare and set: move the run from one status to another and record it, or return False."""
    change = (
        update(Run)
        .where(Run.id == run_id, Run.attempt == last_attempt, Run.status == start)
        .values(status=end, status_reason=reason, **values)
    )
    if connection.execute(change).rowcount != 1:
        return False
    record(connection, run_id, values.get("attempt", last_attempt), start, end, reason)
    return True


def record(connection: Connection, run_id: int, attempt: int, start: Status | None, end: Status, reason: str) -> None:
    connection.execute(
        insert(EventRecord).values(
            run_id=run_id,
            attempt=attempt,
            time=time.time(),
            kind="status",
            payload={"from": start, "to": end, "reason": reason, "attempt": attempt},
        )
    )


def locked(connection: Connection, run_id: int) -> Row[Any]:
    """The run with its newest attempt. Nobody else can change the run until this transaction ends."""
    # The lock first and by itself: PostgreSQL reads a joined row as it was before the wait for the lock. On
    # SQLite this is a plain SELECT, the transaction has the only write lock already.
    connection.execute(select(Run.id).where(Run.id == run_id).with_for_update())
    columns = (Run.id, Run.status, Run.attempt, Run.max_attempts, Run.allowance, Run.cancel_requested, Run.prune_reason)
    newest = (Attempt.run_id == Run.id) & (Attempt.attempt == Run.attempt)
    row = connection.execute(
        select(*columns, Attempt.last_seq, Attempt.outcome, Attempt.worker)
        .outerjoin(Attempt, newest)
        .where(Run.id == run_id)
    ).one_or_none()
    if row is None:
        raise no_run(run_id)
    return row


def again(connection: Connection, run: Row[Any]) -> None:
    """Queue a run that has ended, with as many attempts as at first."""
    fresh = {"max_attempts": run.attempt + run.allowance, "cancel_requested": False, "prune_reason": ""}
    move(connection, run.id, run.attempt, run.status, "queued", ended_at=None, **fresh)


def fence(run: Row[Any], attempt: int) -> None:
    """Raise StaleAttempt unless `attempt` is the one that is starting or running."""
    if run.attempt != attempt or run.status not in {"starting", "running"}:
        raise stale(run, attempt)


def update_attempt(connection: Connection, run_id: int, attempt: int, **values: Any) -> None:
    key = (Attempt.run_id == run_id, Attempt.attempt == attempt)
    connection.execute(update(Attempt).where(*key).values(**values))


def stale(run: Row[Any], attempt: int) -> StaleAttempt:
    reason = f"a write of attempt {attempt} is refused: the run is {run.status}, attempt {run.attempt}"
    return StaleAttempt(reason, place=f"run {run.id}", remedy="This worker should stop")


def wrong_state(run: Row[Any], rule: str) -> RequestError:
    return RequestError(f"the run is {run.status}", place=f"run {run.id}", remedy=rule)


def no_run(run_id: int) -> RequestError:
    return RequestError("there is no such run", place=f"run {run_id}")

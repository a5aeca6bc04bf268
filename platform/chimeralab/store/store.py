"""The store: opening it, and its write side."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, false, func, insert, update

from chimeralab.store.database import Database, insert_missing, repeatable
from chimeralab.store.enqueue import enqueue
from chimeralab.store.ingest import ingest
from chimeralab.store.migrate import check_schema, upgrade_schema
from chimeralab.store.models import Attempt, Cluster, Run, Tag
from chimeralab.store.queries import Queries, portions
from chimeralab.store.queue import Queue
from chimeralab.store.rows import Appended, Ending, NewRun, Now, Status
from chimeralab.store.sweeps import Sweeps
from chimeralab.store.transitions import (
    again,
    fence,
    locked,
    move,
    no_run,
    stale,
    update_attempt,
    wrong_state,
)

if TYPE_CHECKING:
    from chimeralab.events import Event, Metrics


class Store(Queries, Queue, Sweeps):
    """Runs and everything measured on them, in SQLite or PostgreSQL.

    One object serves any number of threads; a forked process opens its own. Each call is one transaction,
    and has happened for good when it returns. A change of status names the state it starts from and is
    refused when the run has left it, so two dispatchers, or a worker that was given up, cannot both write.

    Raises StoreError with the place and a remedy; `StoreUnavailable` when the same call may succeed later.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str, *, migrate: bool = True) -> Store:
        """Open `sqlite:////path/lab.db` or `postgresql://user@host/lab`; bring its schema up to date.

        Raises StoreError when it cannot be reached or written, or was written by a newer version.
        """
        database = Database(url)
        try:
            (upgrade_schema if migrate else check_schema)(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def url(self) -> str:
        """The URL as given, with its password: to open the store elsewhere, never to show."""
        return self._database.url

    @property
    def place(self) -> str:
        """The URL without its password."""
        return self._database.place

    def close(self) -> None:
        self._database.close()

    def __repr__(self) -> str:
        return f"Store({self.place!r})"

    def create_run(self, new: NewRun) -> int:
        """Queue a run and return its id."""
        with self._database.writing() as connection:
            return enqueue(connection, new)

    @repeatable
    def heartbeat(self, cluster: str, address: str, resources: dict[str, Any]) -> None:
        """The cluster is alive and has these resources; see `ClusterRow`."""
        values = {"address": address, "resources": resources, "heartbeat_at": time.time()}
        with self._database.writing() as connection:
            changed = connection.execute(update(Cluster).where(Cluster.name == cluster).values(**values))
            if not changed.rowcount:
                insert_missing(connection, Cluster, [{"name": cluster, **values}])

    def claim(
        self, run_id: int, attempt: int, cluster: str = "", worker: Mapping[str, Any] = MappingProxyType({})
    ) -> int | None:
        """Take a queued run whose last attempt was `attempt`: the new one, or None if another was faster.

        `worker` tells of the worker that it will be given to, so that a restarted dispatcher finds it by its name.
        """
        with self._database.writing() as connection:
            if not move(connection, run_id, attempt, "queued", "starting", attempt=attempt + 1):
                return None
            connection.execute(
                insert(Attempt).values(
                    run_id=run_id,
                    attempt=attempt + 1,
                    cluster=cluster,
                    claimed_at=time.time(),
                    reason="",
                    worker=dict(worker),
                    last_seq=0,
                )
            )
        return attempt + 1

    @repeatable
    def begin(self, run_id: int, attempt: int, worker: dict[str, Any]) -> bool:
        """The worker is there: starting → running. False when the same worker has said so before."""
        with self._database.writing() as connection:
            now = time.time()
            if not move(
                connection,
                run_id,
                attempt,
                "starting",
                "running",
                started_at=func.coalesce(Run.started_at, now),
            ):
                run = locked(connection, run_id)
                if (run.status, run.attempt, run.worker) == ("running", attempt, worker):
                    return False
                raise stale(run, attempt)
            update_attempt(connection, run_id, attempt, began_at=now, worker=worker)
        return True

    @repeatable
    def append(self, run_id: int, attempt: int, events: Sequence[Event]) -> Appended:
        """Write a batch.

        Events up to that number are passed over, so a batch may be sent again. Raises StaleAttempt unless
        this attempt is the one that is starting or running.
        """
        with self._database.writing() as connection:
            run = locked(connection, run_id)
            fence(run, attempt)
            last = run.last_seq
            new: list[Event] = []
            for event in sorted(events, key=lambda event: event.seq):
                if event.seq < 1:
                    raise ValueError("events are numbered from 1 within an attempt")
                if event.seq > last:
                    last = event.seq
                    new.append(event)
            if new:
                ingest(connection, run_id, attempt, new)
                update_attempt(connection, run_id, attempt, last_seq=last)
        return Appended(last, new)

    @repeatable
    def record(self, run_id: int, measured: Metrics) -> None:
        """Write what was measured on a run's checkpoint outside of its attempts, over what was measured before."""
        with self._database.writing() as connection:
            run = locked(connection, run_id)
            ingest(connection, run_id, run.attempt, [measured])

    @repeatable
    def finish(self, run_id: int, attempt: int, status: Ending, reason: str = "") -> Now | None:
        """The attempt is over and so is the run. None when it was said before.

        A run that was cancelled because its sweep stopped it ends as pruned, for the reason of the sweep. One whose
        sweep has gone on while it stopped is queued again: nobody asks for its end any more.
        """
        with self._database.writing() as connection:
            run = locked(connection, run_id)
            end: Status = status
            if status == "cancelled" and run.prune_reason:
                end, reason = "pruned", run.prune_reason
            if (run.attempt, run.outcome) == (attempt, end):
                return None
            fence(run, attempt)
            now = time.time()
            update_attempt(connection, run_id, attempt, ended_at=now, outcome=end, reason=reason)
            if end == "cancelled" and not run.cancel_requested:
                again(connection, run)
                return Now("queued", "")
            move(connection, run_id, attempt, run.status, end, reason, ended_at=now)
        return Now(end, reason)

    def requeue(self, run_id: int, attempt: int, reason: str) -> Now:
        """The attempt was lost: the run is queued again, or ends if it may not be."""
        with self._database.writing() as connection:
            run = locked(connection, run_id)
            fence(run, attempt)
            now = time.time()
            status: Status = "queued"
            if run.cancel_requested:
                status, reason = ("pruned", run.prune_reason) if run.prune_reason else ("cancelled", reason)
            elif attempt >= run.max_attempts:
                status = "failed"
            ended = None if status == "queued" else now
            move(connection, run_id, attempt, run.status, status, reason, ended_at=ended)
            update_attempt(connection, run_id, attempt, ended_at=now, outcome="lost", reason=reason)
        return Now(status, reason)

    def hold(self, run_id: int, reason: str) -> None:
        """Say why a queued run waits. A run that is no longer queued is left alone."""
        with self._database.writing() as connection:
            waiting = update(Run).where(Run.id == run_id, Run.status == "queued")
            connection.execute(waiting.values(status_reason=reason))

    def request_cancel(self, run_id: int) -> Status:
        """Cancel a queued run at once, ask the worker of an active one to stop; returns the status now."""
        with self._database.writing() as connection:
            run = locked(connection, run_id)
            if run.status == "queued":
                move(connection, run_id, run.attempt, "queued", "cancelled", ended_at=time.time())
                return "cancelled"
            if run.status not in {"starting", "running"}:
                raise wrong_state(run, "Only a queued, starting or running run can be cancelled")
            connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested=True))
        return run.status

    def request_prune(self, run_id: int, attempt: int, reason: str) -> bool:
        """Ask the worker of this attempt to stop, for the sweep's sake; False when it is not running any more."""
        with self._database.writing() as connection:
            running = (Run.id == run_id, Run.attempt == attempt, Run.status.in_(["starting", "running"]))
            asked = update(Run).where(*running, Run.cancel_requested == false())
            return connection.execute(asked.values(cancel_requested=True, prune_reason=reason)).rowcount == 1

    def retry(self, run_id: int) -> None:
        """Queue a failed, cancelled or pruned run again, with as many attempts as at first; its points stay."""
        with self._database.writing() as connection:
            run = locked(connection, run_id)
            if run.status not in {"failed", "cancelled", "pruned"}:
                raise wrong_state(run, "Only a failed, cancelled or pruned run can be tried again")
            again(connection, run)

    def tag(self, run_id: int, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        with self._database.writing() as connection:
            locked(connection, run_id)
            connection.execute(delete(Tag).where(Tag.run_id == run_id, Tag.tag.in_(remove)))
            insert_missing(connection, Tag, [{"run_id": run_id, "tag": tag} for tag in add])

    def note(self, run_id: int, text: str) -> None:
        """Replace the run's notes."""
        self._set(run_id, notes=text)

    def rename(self, run_id: int, name: str) -> None:
        self._set(run_id, name=name)

    def archive(self, run_ids: Collection[int], archived: bool = True) -> None:
        """Take runs out of the list, or put them back. Nothing is deleted."""
        with self._database.writing() as connection:
            for some in portions(run_ids):
                connection.execute(update(Run).where(Run.id.in_(some)).values(archived=archived))

    def _set(self, run_id: int, **values: Any) -> None:
        with self._database.writing() as connection:
            if connection.execute(update(Run).where(Run.id == run_id).values(**values)).rowcount != 1:
                raise no_run(run_id)

"""Sweeps in the store: which runs are their members, and what was computed before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update

from chimeralab.errors import RequestError, did_you_mean
from chimeralab.store.database import Database, insert_missing, repeatable
from chimeralab.store.enqueue import enqueue
from chimeralab.store.models import Metric, Point, Run, Sweep, SweepMember
from chimeralab.store.queries import all_rows
from chimeralab.store.rows import UNFINISHED, MemberRow, NewMember, OwnerRow, PutSweep, Status, SweepRow, SweepStatus
from chimeralab.store.transitions import again, locked, move

_QUEUEING = 0x7377656570  # "sweep"


class Sweeps:
    """Part of the store. A sweep is found by its name, and put again to go on with it."""

    _database: Database

    @repeatable
    def put_sweep(
        self, name: str, spec: dict[str, Any], members: Sequence[NewMember], *, wanted: int, at_once: int = 0
    ) -> PutSweep:
        """Make the sweep of this name what is described.

        A member whose spec (by hash) was computed, or is about to be, is that run, whoever queued it. Failed and
        cancelled members are queued again, those that still stop when they have; new ones are queued; waiting runs of
        the sweep that are no longer members are cancelled, unless another active sweep has them.
        """
        with self._database.writing() as connection:
            _one_at_a_time(connection)
            insert_missing(
                connection,
                Sweep,
                [
                    {
                        "name": name,
                        "status": "active",
                        "reason": "",
                        "wanted": wanted,
                        "at_once": at_once,
                        "created_at": time.time(),
                        "spec": spec,
                    }
                ],
            )
            sweep = connection.scalar(select(Sweep.id).where(Sweep.name == name).with_for_update())
            assert sweep is not None
            values = {"status": "active", "reason": "", "wanted": wanted, "at_once": at_once, "spec": spec}
            connection.execute(update(Sweep).where(Sweep.id == sweep).values(**values))
            before = connection.execute(
                select(SweepMember.run_id, SweepMember.owned, Run.spec_hash, Run.status)
                .join(Run, Run.id == SweepMember.run_id)
                .where(SweepMember.sweep_id == sweep)
            ).all()
            connection.execute(delete(SweepMember).where(SweepMember.sweep_id == sweep))
            owned = {row.run_id for row in before if row.owned}
            known = {row.spec_hash: row.run_id for row in before}
            kept = _add(connection, sweep, 0, members, known, owned)
            dropped: dict[int, str] = {}
            for run_id in sorted({row.run_id for row in before if row.status != "completed"}):
                run = locked(connection, run_id)  # it may have moved on since
                if run_id in kept and run.status in ("failed", "cancelled"):
                    again(connection, run)
                elif run_id in kept and run.status in UNFINISHED and run.cancel_requested and not run.prune_reason:
                    # its worker may have been told to stop: `finish` queues it again then
                    connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested=False))
                elif run_id in owned - kept and not _handed_over(connection, run, sweep) and run.status == "queued":
                    dropped[run_id] = f"the sweep {name} was changed"
                    _drop(connection, run, dropped[run_id])
        return PutSweep(sweep, dropped)

    def add_members(self, sweep: int, members: Sequence[NewMember]) -> bool:
        """Queue more runs of a sweep that goes on; False when it does not any more."""
        with self._database.writing() as connection:
            _one_at_a_time(connection)
            row = connection.execute(select(Sweep.status).where(Sweep.id == sweep).with_for_update()).one()
            if row.status != "active":
                return False
            here = SweepMember.sweep_id == sweep
            last = connection.scalar(select(func.max(SweepMember.number)).where(here))
            _add(connection, sweep, 0 if last is None else last + 1, members, {}, set())
        return True

    def settle_sweep(self, sweep: int) -> bool:
        """Call an active sweep completed when it has all its members and all of them have ended."""
        with self._database.writing() as connection:
            row = connection.execute(
                select(Sweep.status, Sweep.wanted).where(Sweep.id == sweep).with_for_update()
            ).one()
            counts = _counts(connection, sweep)[sweep]
            if row.status != "active" or sum(counts.values()) < row.wanted or counts.keys() & {*UNFINISHED}:
                return False
            connection.execute(update(Sweep).where(Sweep.id == sweep).values(status="completed"))
        return True

    def end_sweep(self, sweep: int, status: SweepStatus, reason: str = "") -> dict[int, str]:
        """End a sweep early: its own runs that wait are cancelled, those that run are asked to stop.

        Those that another active sweep has go on, as its own. Returns the reason of each that was cancelled.
        """
        dropped: dict[int, str] = {}
        with self._database.writing() as connection:
            _one_at_a_time(connection)
            connection.execute(update(Sweep).where(Sweep.id == sweep).values(status=status, reason=reason))
            own = select(SweepMember.run_id).where(SweepMember.sweep_id == sweep, SweepMember.owned)
            for run_id in connection.scalars(own.order_by(SweepMember.run_id)).all():
                run = locked(connection, run_id)
                if _handed_over(connection, run, sweep):
                    continue
                if run.status == "queued":
                    dropped[run_id] = f"its sweep was {status}"
                    _drop(connection, run, dropped[run_id])
                elif run.status in UNFINISHED:
                    connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested=True))
        return dropped

    def sweep(self, reference: str | int) -> SweepRow:
        """A sweep by name or id. Raises RequestError: there is none."""
        found = self._sweeps(Sweep.id == reference if isinstance(reference, int) else Sweep.name == reference)
        if not found:
            with self._database.reading() as connection:
                known = connection.scalars(select(Sweep.name)).all()
            raise RequestError(
                "there is no such sweep", place=f"sweep {reference!r}", remedy=did_you_mean(str(reference), known)
            )
        return found[0]

    def sweeps(self, status: SweepStatus | None = None) -> list[SweepRow]:
        """Every sweep (with this status), newest first."""
        return self._sweeps(*(() if status is None else (Sweep.status == status,)))

    def sweep_members(self, sweep: int) -> list[MemberRow]:
        """The runs of a sweep, in the order of its points and seeds."""
        member = SweepMember
        about = (Run.status, Run.status_reason, Run.task, Run.step, Run.seconds)
        query = select(member.number, member.run_id, member.owned, member.seed, member.point, *about)
        query = query.join(Run, Run.id == member.run_id).where(member.sweep_id == sweep)
        return all_rows(self._database, MemberRow, query.order_by(member.number))

    def owner(self, run_id: int) -> OwnerRow | None:
        """The active sweep that queued the run."""
        query = select(Sweep.id, Sweep.spec).join(SweepMember, SweepMember.sweep_id == Sweep.id)
        query = query.where(SweepMember.run_id == run_id, SweepMember.owned, Sweep.status == "active")
        return next(iter(all_rows(self._database, OwnerRow, query)), None)

    def sweep_curves(self, sweep: int, metric: str) -> dict[int, list[tuple[int, float]]]:
        """(step, value) of a metric for each member, adopted ones too, in the order of steps."""
        number = select(Metric.id).where(Metric.name == metric).scalar_subquery()
        query = select(SweepMember.run_id, Point.step, Point.value)
        query = query.outerjoin(Point, (Point.run_id == SweepMember.run_id) & (Point.metric_id == number))
        query = query.where(SweepMember.sweep_id == sweep)
        found: dict[int, list[tuple[int, float]]] = {}
        with self._database.reading() as connection:
            for run_id, step, value in connection.execute(query.order_by(SweepMember.run_id, Point.step)):
                curve = found.setdefault(run_id, [])
                if step is not None:
                    curve.append((step, value))
        return found

    def _sweeps(self, *conditions: Any) -> list[SweepRow]:
        about = (Sweep.id, Sweep.name, Sweep.status, Sweep.reason, Sweep.wanted, Sweep.at_once, Sweep.created_at)
        with self._database.reading() as connection:
            found = connection.execute(select(*about, Sweep.spec).where(*conditions).order_by(Sweep.id.desc())).all()
            counts = _counts(connection, *(row.id for row in found))
        return [SweepRow(**row._mapping, members=counts[row.id]) for row in found]


def _drop(connection: Connection, run: Row[Any], reason: str) -> None:
    """Cancel a run that waits."""
    move(connection, run.id, run.attempt, "queued", "cancelled", reason, ended_at=time.time())


def _handed_over(connection: Connection, run: Row[Any], sweep: int) -> bool:
    """Make another active sweep the owner of a run that has not ended; False where none has it."""
    others = select(SweepMember.sweep_id, SweepMember.number).join(Sweep, Sweep.id == SweepMember.sweep_id)
    others = others.where(SweepMember.run_id == run.id, SweepMember.sweep_id != sweep, Sweep.status == "active")
    heir = connection.execute(others.order_by(SweepMember.sweep_id, SweepMember.number).limit(1)).one_or_none()
    if heir is None or run.status not in UNFINISHED:
        return False
    before = update(SweepMember).where(SweepMember.run_id == run.id, SweepMember.owned)
    connection.execute(before.values(owned=False))
    after = update(SweepMember).where(SweepMember.sweep_id == heir.sweep_id, SweepMember.number == heir.number)
    connection.execute(after.values(owned=True))
    return True


def _one_at_a_time(connection: Connection) -> None:
    """Until this transaction ends no other changes who has which run: two would both queue what nobody computes.

    On SQLite a writing transaction is alone from its beginning.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _QUEUEING})


def _counts(connection: Connection, *sweeps: int) -> dict[int, dict[Status, int]]:
    """How many members of each sweep have each status."""
    query = select(SweepMember.sweep_id, Run.status, func.count()).join(Run, Run.id == SweepMember.run_id)
    query = query.where(SweepMember.sweep_id.in_(sweeps)).group_by(SweepMember.sweep_id, Run.status)
    found: dict[int, dict[Status, int]] = {sweep: {} for sweep in sweeps}
    for sweep, status, count in connection.execute(query):
        found[sweep][cast(Status, status)] = count
    return found


def _add(
    connection: Connection,
    sweep: int,
    first: int,
    members: Sequence[NewMember],
    known: dict[str, int],
    owned: set[int],
) -> set[int]:
    """Write the members' rows, with a run for each; returns the ids of the runs.

    `known` are runs of this sweep by their spec's hash, `owned` those that it queued.
    """
    taken: set[int] = set()
    rows = []
    for number, member in enumerate(members, first):
        run_id = known.get(member.run.spec_hash) or _computed(connection, member.run.spec_hash)
        if run_id is None:
            run_id = enqueue(connection, member.run)
            owned.add(run_id)
        known[member.run.spec_hash] = run_id
        own = run_id in owned and run_id not in taken  # once, where two points compute the same
        taken.add(run_id)
        place = {"sweep_id": sweep, "number": number, "run_id": run_id, "owned": own}
        rows.append({**place, "seed": member.seed, "point": member.point})
    if rows:
        connection.execute(insert(SweepMember), rows)
    return taken


def _computed(connection: Connection, spec_hash: str) -> int | None:
    """The run that computed this spec, or else one that will."""
    done = Run.status == "completed"
    will = Run.status.in_(UNFINISHED) & Run.cancel_requested.is_(False)
    same = (Run.spec_hash == spec_hash, done | will, Run.archived.is_(False))
    return connection.scalar(select(Run.id).where(*same).order_by(done.desc(), Run.id).limit(1))

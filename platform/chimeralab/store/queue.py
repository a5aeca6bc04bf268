"""The dispatcher's questions: what waits, what runs, who serves the store."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, or_, select

from chimeralab.store.database import Database
from chimeralab.store.models import Attempt, Cluster, Run, SweepMember
from chimeralab.store.queries import all_rows, columns_of
from chimeralab.store.rows import ActiveRun, ClusterRow, QueuedRun

OWNER = and_(SweepMember.run_id == Run.id, SweepMember.owned)  # the sweep that queued the run


class Queue:
    """Part of the store."""

    _database: Database

    def queued(self, limit: int = 100, *, after_id: int = 0, passing_over: Collection[int] = ()) -> list[QueuedRun]:
        """Runs that wait, oldest first, but for those of some sweeps."""
        query = select(Run.id, Run.attempt, Run.status_reason, Run.resources, SweepMember.sweep_id)
        query = query.outerjoin(SweepMember, OWNER).where(Run.status == "queued", Run.id > after_id)
        if passing_over:
            query = query.where(or_(SweepMember.sweep_id.is_(None), SweepMember.sweep_id.not_in(passing_over)))
        return all_rows(self._database, QueuedRun, query.order_by(Run.id).limit(limit))

    def active(self) -> list[ActiveRun]:
        """Runs that are starting or running."""
        about = (Attempt.cluster, Attempt.worker, Cluster.heartbeat_at, SweepMember.sweep_id)
        query = (
            select(Run.id, Run.attempt, Run.status, Run.cancel_requested, *about)
            .join(Attempt, (Attempt.run_id == Run.id) & (Attempt.attempt == Run.attempt))
            .outerjoin(Cluster, Cluster.name == Attempt.cluster)
            .outerjoin(SweepMember, OWNER)
        )
        return all_rows(
            self._database, ActiveRun, query.where(Run.status.in_(["starting", "running"])).order_by(Run.id)
        )

    def clusters(self) -> list[ClusterRow]:
        """Clusters that serve this store, the liveliest first."""
        query = columns_of(Cluster, ClusterRow)
        return all_rows(self._database, ClusterRow, query.order_by(Cluster.heartbeat_at.desc()))

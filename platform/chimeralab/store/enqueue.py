"""A new run's rows, inside the transaction that queues it."""

from __future__ import annotations

import time

from sqlalchemy import Connection, insert, select

from chimeralab.store.database import insert_missing
from chimeralab.store.models import Project, Run, RunPlugin, Tag
from chimeralab.store.rows import NewRun
from chimeralab.store.transitions import record


def enqueue(connection: Connection, new: NewRun) -> int:
    """Queue a run and return its id."""
    insert_missing(connection, Project, [{"name": new.project}])
    project = connection.scalar(select(Project.id).where(Project.name == new.project))
    run = insert(Run).values(
        project_id=project,
        name=new.name,
        status="queued",
        status_reason="",
        attempt=0,
        max_attempts=new.max_attempts,
        allowance=new.max_attempts,
        cancel_requested=False,
        prune_reason="",
        archived=False,
        spec_hash=new.spec_hash,
        task=new.task,
        step=0,
        total_steps=new.total_steps,
        seconds=0.0,
        tokens_per_second=0.0,
        phase="",
        created_at=time.time(),
        pattern=new.pattern,
        notes=new.notes,
        resources=new.resources,
        spec=new.spec,
    )
    run_id = connection.execute(run.returning(Run.id)).scalar_one()
    insert_missing(connection, Tag, [{"run_id": run_id, "tag": tag} for tag in new.tags])
    insert_missing(
        connection,
        RunPlugin,
        [{"run_id": run_id, "name": n, "version": v, "package": p} for n, v, p in new.plugins],
    )
    record(connection, run_id, 0, None, "queued", "")
    return run_id

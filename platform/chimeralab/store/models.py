"""The tables. Times are Unix seconds; steps, tokens and bytes are 64-bit counts.

The rows that a caller sees are the dataclasses of `rows.py`; these classes only describe the database.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Double, ForeignKey, Index, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chimeralab.store.types import Json, Measured, RowId, Words


class Base(DeclarativeBase):
    # Named constraints can be altered by a later migration on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {str: Words, float: Double, dict[str, Any]: Json}


class Project(Base):
    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Run(Base):
    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    status: Mapped[str]
    status_reason: Mapped[str]
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    allowance: Mapped[int]  # the max_attempts asked for at first: a retry grants it again
    cancel_requested: Mapped[bool]
    archived: Mapped[bool]
    spec_hash: Mapped[str]
    task: Mapped[str]
    step: Mapped[int] = mapped_column(BigInteger)
    total_steps: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Measured, nullable=True)
    tokens_per_second: Mapped[float] = mapped_column(Measured, nullable=True)
    phase: Mapped[str]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    # The long columns come last: SQLite reads a row from the left and stops at the last column it needs.
    pattern: Mapped[str]
    notes: Mapped[str]
    resources: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    prune_reason: Mapped[str] = mapped_column(server_default="")  # why its sweep stops it; "" while it does not

    __table_args__ = (
        Index(None, "status", "id"),  # the dispatcher's questions: queued, active
        Index(None, "archived", "created_at"),  # the list of runs
        Index(None, "project_id", "archived", "created_at"),
        Index(None, "name"),
        Index(None, "spec_hash"),  # was this computed already?
    )


class Sweep(Base):
    __tablename__ = "sweeps"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str]  # active, completed, cancelled, failed
    reason: Mapped[str]
    wanted: Mapped[int]  # members that it will have in the end
    at_once: Mapped[int]
    created_at: Mapped[float]
    spec: Mapped[dict[str, Any]]

    __table_args__ = (Index(None, "status"),)


class SweepMember(Base):
    """A run may be a member of several sweeps; the one that queued it owns it, the others adopted it."""

    __tablename__ = "sweep_members"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    owned: Mapped[bool]
    seed: Mapped[int] = mapped_column(BigInteger)
    point: Mapped[dict[str, Any]]

    __table_args__ = (Index(None, "run_id"),)


class Attempt(Base):
    __tablename__ = "attempts"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    cluster: Mapped[str]  # who claimed it; only that cluster's dispatcher can know what became of its worker
    claimed_at: Mapped[float]
    began_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None]  # completed, failed, cancelled or lost
    reason: Mapped[str]
    worker: Mapped[dict[str, Any]]
    last_seq: Mapped[int] = mapped_column(BigInteger)  # every event up to this number is in the store


class Cluster(Base):
    """A cluster that serves this store, as its dispatcher last described it."""

    __tablename__ = "clusters"

    name: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str]
    resources: Mapped[dict[str, Any]]
    heartbeat_at: Mapped[float]


class Metric(Base):
    """The dictionary of metric names: a point holds a number instead of a text."""

    __tablename__ = "metrics"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Point(Base):
    __tablename__ = "points"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    metric_id: Mapped[int] = mapped_column(ForeignKey("metrics.id"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float] = mapped_column(Measured, nullable=True)
    tokens: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Measured, nullable=True)
    attempt: Mapped[int]

    # Stored in the order of the key, so a curve is one range of neighbouring pages.
    __table_args__ = ({"sqlite_with_rowid": False},)


class Summary(Base):
    """Last, least and greatest value of each curve, kept while writing: a leaderboard reads no points."""

    __tablename__ = "metric_summaries"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    metric_id: Mapped[int] = mapped_column(ForeignKey("metrics.id"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[float] = mapped_column(Measured, nullable=True)
    min: Mapped[float] = mapped_column(Measured, nullable=True)
    max: Mapped[float] = mapped_column(Measured, nullable=True)

    __table_args__ = ({"sqlite_with_rowid": False},)


class Profile(Base):
    __tablename__ = "profiles"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    context: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    batch: Mapped[int]
    values: Mapped[dict[str, Any]]
    attempt: Mapped[int]
    time: Mapped[float]


class Artifact(Base):
    """A complete checkpoint on disk; one row for each role."""

    __tablename__ = "artifacts"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]]
    attempt: Mapped[int]
    time: Mapped[float]


class EventRecord(Base):
    """Logs, samples and environments as the worker sent them, and every change of status."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[int]
    seq: Mapped[int | None] = mapped_column(BigInteger)  # None: the store's own, a change of status
    time: Mapped[float]
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]

    __table_args__ = (Index(None, "run_id", "id"), Index(None, "run_id", "kind", "id"))


class Tag(Base):
    __tablename__ = "tags"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)

    __table_args__ = (Index(None, "tag", "run_id"),)


class RunPlugin(Base):
    __tablename__ = "run_plugins"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    package: Mapped[str]

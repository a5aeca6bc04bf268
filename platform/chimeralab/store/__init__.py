"""Runs, metrics and checkpoints in SQL: SQLite by default, PostgreSQL by URL. Knows neither torch nor Ray."""

from __future__ import annotations

from chimeralab.store.database import StoreUnavailable, with_password
from chimeralab.store.rows import (
    UNFINISHED,
    ActiveRun,
    Appended,
    ArtifactRow,
    AttemptRow,
    ClusterRow,
    Curve,
    EventRow,
    MemberRow,
    MetricSummary,
    NewMember,
    NewRun,
    Now,
    OwnerRow,
    PluginRow,
    ProfileRow,
    QueuedRun,
    RunFilter,
    RunPage,
    RunRow,
    SweepRow,
)
from chimeralab.store.store import Store

__all__ = [
    "UNFINISHED",
    "ActiveRun",
    "Appended",
    "ArtifactRow",
    "AttemptRow",
    "ClusterRow",
    "Curve",
    "EventRow",
    "MemberRow",
    "MetricSummary",
    "NewMember",
    "NewRun",
    "Now",
    "OwnerRow",
    "PluginRow",
    "ProfileRow",
    "QueuedRun",
    "RunFilter",
    "RunPage",
    "RunRow",
    "Store",
    "StoreUnavailable",
    "SweepRow",
    "with_password",
]

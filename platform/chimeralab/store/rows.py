"""What goes into the store and what comes out: plain values, detached from the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # pydantic takes longer to import than this whole package
    from chimeralab.events import Event

Status = Literal["queued", "starting", "running", "completed", "failed", "cancelled", "pruned"]
Ending = Literal["completed", "failed", "cancelled"]
SweepStatus = Literal["active", "completed", "cancelled", "failed"]
UNFINISHED: tuple[Status, ...] = ("queued", "starting", "running")


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be queued. `plugins` are (name, version, package)."""

    name: str
    project: str
    spec: dict[str, Any]
    spec_hash: str
    pattern: str
    task: str
    total_steps: int
    max_attempts: int = 1
    resources: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    notes: str = ""
    plugins: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A run that waits, and why; `sweep` is the id of the sweep that queued it."""

    id: int
    attempt: int
    status_reason: str
    resources: dict[str, Any]
    sweep: int | None


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch of events: the number of the last one in the store, and those that were not there yet."""

    last: int
    new: list[Event]


@dataclass(frozen=True, slots=True)
class Now:
    """What a run has become, and why."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class PutSweep:
    """A sweep's id, and why each of its runs was cancelled that waited and is no member any more."""

    id: int
    dropped: dict[int, str]


@dataclass(frozen=True, slots=True)
class ActiveRun:
    id: int
    attempt: int
    status: Status
    cancel_requested: bool
    cluster: str
    worker: dict[str, Any]
    heartbeat_at: float | None  # of that cluster
    sweep: int | None


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster that serves the store.

    `resources` are totals ("CPU", "GPU", "memory" in bytes, "nodes"), and under "shapes" what a node of it may have.
    """

    name: str
    address: str
    resources: dict[str, Any]
    heartbeat_at: float


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it stands: `step` of `total_steps` after `seconds` of work. The `_at` are Unix seconds."""

    id: int
    name: str
    project: str
    status: Status
    status_reason: str
    attempt: int
    max_attempts: int
    cancel_requested: bool
    archived: bool
    spec_hash: str
    task: str
    step: int
    total_steps: int
    seconds: float
    tokens_per_second: float
    phase: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    pattern: str
    notes: str
    resources: dict[str, Any]
    spec: dict[str, Any]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewMember:
    """A run of a sweep, and where it stands on the axes."""

    point: dict[str, Any]
    seed: int
    run: NewRun


@dataclass(frozen=True, slots=True)
class SweepRow:
    """A sweep as it stands; `members` counts its runs by status, of the `wanted` that it will have."""

    id: int
    name: str
    status: SweepStatus
    reason: str
    wanted: int
    at_once: int
    created_at: float
    spec: dict[str, Any]
    members: dict[Status, int]


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """The active sweep that queued a run."""

    id: int
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One run of a sweep. `owned`: it was queued by this sweep, not adopted from before."""

    number: int
    run_id: int
    owned: bool
    seed: int
    point: dict[str, Any]
    status: Status
    status_reason: str
    task: str
    step: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs, in which order. None means any.

    `order_by` is a column (`created`, `name`, …) or `metric:NAME`, `metric:NAME:min`, `metric:NAME:max`;
    a leading `-` turns it round. Runs without the metric, or with NaN, come last either way.
    """

    project: str | None = None
    status: Status | Sequence[Status] | None = None
    task: str | None = None
    text: str | None = None  # in the name, the pattern or the notes; letter case does not matter
    tag: str | None = None
    sweep: str | None = None  # by name
    archived: bool | None = False
    order_by: str = "-created"
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some of the runs that a filter selects; `total` counts them all."""

    rows: list[RunRow]
    total: int


@dataclass(frozen=True, slots=True)
class AttemptRow:
    attempt: int
    cluster: str
    claimed_at: float
    began_at: float | None
    ended_at: float | None
    outcome: Literal["completed", "failed", "cancelled", "lost"] | None
    reason: str
    worker: dict[str, Any]
    last_seq: int


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """`last` is the value at the greatest `step`; `min` and `max` pass over NaN."""

    last: float
    step: int
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Curve:
    x: list[float]
    y: list[float]
    steps: list[int]


@dataclass(frozen=True, slots=True)
class EventRow:
    """`seq` is the worker's number, None for a change of status, which the store wrote itself."""

    id: int
    attempt: int
    seq: int | None
    time: float
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProfileRow:
    run_id: int
    name: str
    context: int
    batch: int
    values: dict[str, float]
    attempt: int
    time: float


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    role: str
    step: int
    path: str
    bytes: int
    metrics: dict[str, float]
    attempt: int
    time: float


@dataclass(frozen=True, slots=True)
class PluginRow:
    name: str
    version: str
    package: str

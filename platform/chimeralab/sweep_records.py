"""What a lab knows of its sweeps: queueing them, and their points with means over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from chimeralab.errors import LabError, RequestError
from chimeralab.runs import RunSpec
from chimeralab.scheduling.submission import new_members
from chimeralab.statistics import Best, Estimate, best, estimate
from chimeralab.store import UNFINISHED, MemberRow, Store, SweepRow
from chimeralab.sweeps import Member, SweepSpec
from chimeralab.waiting import wait_for


class SweepPoint(BaseModel):
    """One point: its runs by seed, and the last value of every metric of those that were completed."""

    point: dict[str, Any]
    task: str
    runs: dict[int, int]  # seed → run
    statuses: dict[str, int]
    values: dict[str, dict[int, float]]  # metric → seed → value

    @property
    def label(self) -> str:
        return ", ".join(f"{axis}={value}" for axis, value in self.point.items()) or "base"

    def estimate(self, metric: str) -> Estimate | None:
        """Mean and interval over seeds; None where no seed has it."""
        found = self.values.get(metric)
        return estimate(found.values()) if found else None


class SweepTable(BaseModel):
    """A sweep as it stands. `best` names the point with the best mean on validation, by its index in `points`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    id: int
    name: str
    status: str
    reason: str
    wanted: int
    members: dict[str, int]
    spec: SweepSpec
    points: list[SweepPoint]
    best: Best[int] | None

    @property
    def metric(self) -> str:
        return self.spec.metric

    @property
    def test_metric(self) -> str:
        """The same metric on the test split, which no choice looks at."""
        return f"test/{self.spec.metric.partition('/')[2]}"

    @property
    def run_ids(self) -> list[int]:
        return [run for point in self.points for run in point.runs.values()]


class SweepRecords:
    """Sweeps by name, as the store has them. `Lab` is one."""

    store: Store

    if TYPE_CHECKING:

        def preview(self, spec: RunSpec) -> object:
            """The lab's: everything that can be wrong with a run."""

    def sweep(self, spec: SweepSpec) -> int:
        """Check every point of a sweep and queue its members; returns its id.

        The sweep of this name goes on where there is one: what finished is not repeated, failed and cancelled members
        are tried again. A run that computed the same spec before is a member too, whoever queued it.

        Raises:
            PatternError, SpecError, DataError, KernelError, ResourceError: nothing was queued; `place` names the axis
                and the value.
        """
        points = self._asked_before(spec)
        members = spec.members(points)
        self._check(spec, members)
        whole = spec.resolved(members)
        wanted = (spec.search.n or 0) * len(spec.seeds) if spec.search.kind == "optuna" else len(members)
        put = self.store.put_sweep(
            spec.name,
            whole.model_dump(mode="json"),
            new_members(members),
            wanted=wanted,
            at_once=whole.members_at_once,
        )
        _tell(put.dropped)
        self.store.settle_sweep(put.id)
        return put.id

    def sweeps(self) -> list[SweepRow]:
        """Every sweep, newest first."""
        return self.store.sweeps()

    def sweep_table(self, name: str | int) -> SweepTable:
        """A sweep by name or id: its points with what was measured. Raises RequestError: there is none."""
        row = self.store.sweep(name)
        spec = SweepSpec.model_validate(row.spec)
        points = self._points(self.store.sweep_members(row.id))
        shown = SweepTable(
            id=row.id,
            name=row.name,
            status=row.status,
            reason=row.reason,
            wanted=row.wanted,
            members=dict(row.members),
            spec=spec,
            points=points,
            best=None,
        )
        validation = {number: point.values.get(spec.metric, {}) for number, point in enumerate(points)}
        test = {number: point.values.get(shown.test_metric, {}) for number, point in enumerate(points)}
        if len({point.task for point in points}) == 1 and spec.direction:
            shown.best = best(validation, spec.direction, test)
        return shown

    def wait_sweep(
        self,
        name: str | int,
        *,
        timeout: float | None = None,
        watch: Callable[[SweepRow], None] = lambda _: None,
        poll: float = 0.5,
    ) -> SweepRow:
        """Wait until a sweep has ended. `watch` sees it at each poll. A store that is away is waited for.

        Raises:
            TimeoutError: after `timeout` seconds.
            StoreUnavailable: the store was away for ten minutes.
        """

        def look() -> tuple[SweepRow | None, str]:
            row = self.store.sweep(name)
            watch(row)
            told = f"sweep {row.name}: " + ", ".join(f"{count} {status}" for status, count in row.members.items())
            if row.members.keys() & {*UNFINISHED}:
                return None, told
            ended = row.status != "active" or self.store.settle_sweep(row.id)
            return (self.store.sweep(row.id) if ended else None), told

        return wait_for(self.store, look, timeout=timeout, poll=poll)

    def cancel_sweep(self, name: str | int) -> None:
        """Cancel what waits and stop what runs. `sweep` goes on with it."""
        row = self.store.sweep(name)
        if row.status != "active":
            raise RequestError(f"the sweep is {row.status}", place=f"sweep {row.name!r}")
        _tell(self.store.end_sweep(row.id, "cancelled"))

    def _asked_before(self, spec: SweepSpec) -> list[dict[str, Any]] | None:
        """The points that an optuna search has chosen so far, where it is the same search that goes on."""
        if spec.search.kind != "optuna":
            return None
        try:
            row = self.store.sweep(spec.name)
        except RequestError:
            return None
        before = SweepSpec.model_validate(row.spec)
        same = ("base", "axes", "seeds")
        if before.search.kind != "optuna" or any(getattr(before, name) != getattr(spec, name) for name in same):
            return None
        points: list[dict[str, Any]] = []
        for member in self.store.sweep_members(row.id):
            if member.point not in points:
                points.append(member.point)
        return points

    def _check(self, spec: SweepSpec, members: list[Member]) -> None:
        """What `submit` checks, for each point; points that differ in numbers of the recipe alone are checked once."""
        seen = set()
        for member in members:
            shape = member.spec.model_copy(
                update={
                    "name": "",
                    "seed": 0,
                    "train": member.spec.train.model_copy(
                        update={"lr": 1.0, "weight_decay": 0.0, "beta1": 0.5, "beta2": 0.5, "clip": 1.0}
                    ),
                }
            ).model_dump_json()
            if shape in seen:
                continue
            seen.add(shape)
            try:
                self.preview(member.spec)
            except LabError as error:
                raise spec.blamed(error, member.point) from None

    def _points(self, members: list[MemberRow]) -> list[SweepPoint]:
        summaries = self.store.summaries([m.run_id for m in members if m.status == "completed"])
        grouped: dict[str, list[MemberRow]] = {}
        for member in members:
            grouped.setdefault(repr(sorted(member.point.items(), key=lambda item: item[0])), []).append(member)
        found = []
        for group in grouped.values():
            values: dict[str, dict[int, float]] = {}
            for member in group:
                for metric, summary in summaries.get(member.run_id, {}).items():
                    values.setdefault(metric, {})[member.seed] = summary.last
            found.append(
                SweepPoint(
                    point=group[0].point,
                    task=group[0].task,
                    runs={member.seed: member.run_id for member in group},
                    statuses=dict(Counter(member.status for member in group)),
                    values=values,
                )
            )
        return found


def _tell(dropped: dict[int, str]) -> None:
    """Plugins hear of runs that were cancelled while they waited from here: no dispatcher knew them."""
    from chimeralab.plugins import registry

    for run_id, reason in dropped.items():
        registry().notify("run_finished", run_id=run_id, status="cancelled", reason=reason)

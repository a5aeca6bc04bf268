"""What a lab knows of its runs: it reads the store, and writes tags, notes and names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import ValidationError

from chimeralab.comparison import Comparison, compare
from chimeralab.runs import RunSpec
from chimeralab.store import (
    ArtifactRow,
    AttemptRow,
    Curve,
    EventRow,
    MetricSummary,
    PluginRow,
    ProfileRow,
    RunFilter,
    RunPage,
    RunRow,
    Store,
)


class RunRecords:
    """Runs by id, as the store has them. `Lab` is one."""

    store: Store

    def find(self, reference: str) -> int:
        """The id of a run given by id or unique name."""
        return self.store.find(reference)

    def runs(self, wanted: RunFilter | None = None) -> RunPage:
        return self.store.runs(wanted or RunFilter())

    def run(self, run_id: int) -> RunRow:
        return self.store.run(run_id)

    def spec(self, run_id: int) -> RunSpec:
        """A run's spec, to reproduce or change it."""
        try:
            return RunSpec.model_validate(self.store.run(run_id).spec)
        except ValidationError as error:
            from chimeralab.stack.resolve import invalid

            raise invalid(error, RunSpec, f"run {run_id}") from None

    def metrics(self, run_id: int) -> list[str]:
        return self.store.metrics(run_id)

    def curve(
        self,
        run_id: int,
        metric: str,
        *,
        x: Literal["step", "tokens", "seconds"] = "step",
        max_points: int | None = None,
    ) -> Curve:
        return self.store.curve(run_id, metric, x=x, max_points=max_points)

    def summaries(self, run_ids: Collection[int]) -> dict[int, dict[str, MetricSummary]]:
        return self.store.summaries(run_ids)

    def events(
        self,
        run_id: int,
        *,
        kinds: Sequence[str] | None = None,
        after_id: int = 0,
        limit: int = 500,
        newest: bool = False,
    ) -> list[EventRow]:
        """Logs, samples, environments, changes of status, oldest first; `newest` takes the last `limit`."""
        return self.store.events(run_id, kinds=kinds, after_id=after_id, limit=limit, newest=newest)

    def attempts(self, run_id: int) -> list[AttemptRow]:
        return self.store.attempts(run_id)

    def profiles(self, run_ids: Collection[int]) -> list[ProfileRow]:
        return self.store.profiles(run_ids)

    def artifacts(self, run_id: int) -> list[ArtifactRow]:
        return self.store.artifacts(run_id)

    def compare(self, run_ids: Sequence[int]) -> Comparison:
        return compare(self.store, run_ids)

    def projects(self) -> list[str]:
        return self.store.projects()

    def run_plugins(self, run_id: int) -> list[PluginRow]:
        """The plugins that a run was queued with."""
        return self.store.plugins(run_id)

    def tag(self, run_id: int, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        self.store.tag(run_id, add, remove)

    def note(self, run_id: int, text: str) -> None:
        self.store.note(run_id, text)

    def rename(self, run_id: int, name: str) -> None:
        self.store.rename(run_id, name)

    def archive(self, run_ids: Collection[int], archived: bool = True) -> None:
        self.store.archive(run_ids, archived)

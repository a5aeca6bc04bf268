"""SweepSpec: a base run, what varies in it, and how the space is searched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chimeralab.errors import LabError, SpecError
from chimeralab.runs.fields import read_stack_fields, set_field, with_stack
from chimeralab.runs.spec import RunSpec
from chimeralab.stack.spec import StackSpec
from chimeralab.sweeps.axes import Axis, check_axes, read_axis
from chimeralab.sweeps.yaml_file import read_yaml

Point = dict[str, Any]
"""One place in the space: {axis: a value of it, or the name of one of its points}."""

_USUAL = {"accuracy": "max", "loss": "min", "bits_per_byte": "min", "perplexity": "min"}
MAX_MEMBERS = 10_000
NAME_LENGTH = 200  # of a run


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Search(_Spec):
    """How points are chosen: all of them, `n` at random, or `n` one after another by optuna's TPE."""

    kind: Literal["grid", "random", "optuna"] = "grid"
    n: int | None = Field(None, ge=1, le=MAX_MEMBERS, description="Points to try; a grid has its own number")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the draws")


class Halving(_Spec):
    """Asynchronous successive halving (ASHA, arXiv:1810.05934): of the members that were evaluated at a rung, the best
    1/eta go on. Rungs stand at min_step, min_step·eta, min_step·eta², …
    """

    min_step: int = Field(ge=1, description="First step at which a member may be stopped")
    eta: float = Field(3, gt=1, description="One of so many goes on")


@dataclass(frozen=True)
class Member:
    """One run of a sweep: where it stands on the axes, its seed, and what it computes."""

    point: Point
    seed: int
    spec: RunSpec


class SweepSpec(_Spec):
    """Runs that differ in a few fields.

    >>> sweep = SweepSpec(name="lr", base={"stack": {"pattern": "attention x2"}}, axes={"train.lr": [1e-3, 1e-2]})
    >>> [(member.point, member.seed) for member in sweep.members()]
    [({'train.lr': 0.001}, 0), ({'train.lr': 0.01}, 0)]
    """

    name: str = Field(min_length=1, max_length=100, description="A lab has one sweep of a name; it is how it goes on")
    base: dict[str, Any] = Field(description="Fields of the run; its stack as {pattern: ..., d_model: ...}")
    axes: dict[str, Any] = Field({}, description="Dotted field → values, an interval, or named points")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (0,), min_length=1, description="Each point's runs"
    )
    search: Search = Search()
    metric: str = Field("", description="What points are ranked by, on validation; default: the task's own")
    direction: Literal["", "min", "max"] = Field("", description="Which is better; default: as the task says")
    prune: Halving | None = None
    at_once: int = Field(0, ge=0, description="Members that run at a time; 0: as many as the cluster has room for")

    @field_validator("search", mode="before")
    @classmethod
    def _by_kind(cls, written: Any) -> Any:
        return {"kind": written} if isinstance(written, str) else written

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice")
        return seeds

    @field_validator("metric")
    @classmethod
    def _not_on_test(cls, metric: str) -> str:
        if metric and metric.partition("/")[0] not in ("validation", "train"):
            raise ValueError("points are chosen on validation, as by validation/accuracy; test is for the report")
        return metric

    @model_validator(mode="after")
    def _fits_together(self) -> SweepSpec:
        if self.search.kind == "grid" and self.search.n is not None:
            raise ValueError("a grid has all its points: n is for random and optuna")
        if self.search.kind != "grid" and self.search.n is None:
            raise ValueError(f"a {self.search.kind} search wants n, the number of points to try")
        if "seed" in self.base:
            raise ValueError("the base has a seed: write seeds: [0, 1, 2]")
        return self

    @classmethod
    def read(cls, written: Any) -> SweepSpec:
        """A spec from the contents of a file.

        Raises:
            SpecError: names what does not fit.
        """
        from chimeralab.stack.resolve import invalid

        if not isinstance(written, Mapping):
            raise SpecError("expected fields: name, base, axes, seeds …", place="sweep")
        try:
            spec = cls.model_validate(dict(written))
        except ValidationError as error:
            raise invalid(error, cls, "sweep") from None
        spec.read_axes()
        return spec

    @property
    def points_at_once(self) -> int:
        """Points that an optuna search tries side by side."""
        return min(self.search.n or 1, max(1, self.members_at_once // len(self.seeds)))

    @property
    def members_at_once(self) -> int:
        """`at_once`; a search that learns from what it measured has four at a time where nothing else is asked."""
        return self.at_once or (4 * len(self.seeds) if self.search.kind == "optuna" else 0)

    def read_axes(self) -> list[Axis]:
        """The axes, checked. Raises SpecError, which names the axis."""
        axes = [read_axis(name, written) for name, written in self.axes.items()]
        check_axes(axes)
        for axis in axes:
            if not axis.choices and self.search.kind == "grid":
                raise SpecError(
                    "a grid needs to know how many values to take",
                    place=f"axes: {axis.name}",
                    remedy="Write [low, high, count], or search: {kind: random, n: 20}",
                )
        return axes

    def points(self) -> list[Point]:
        """The points of a grid or a random search; of an optuna search, those that need no results.

        Raises:
            SpecError: an axis cannot be read, or there are too many points.
        """
        from chimeralab.sweeps.search import draw, suggest

        axes = self.read_axes()
        if self.search.kind == "random":
            found = draw(axes, self.search.n or 0, self.search.seed)
        elif self.search.kind == "optuna":
            found = suggest(self, [], self.points_at_once)
        else:
            size = math.prod(len(axis.choices) for axis in axes)
            if size * len(self.seeds) > MAX_MEMBERS:
                raise SpecError(f"the grid has {size} points", place="axes", remedy="Draw from it: search: random")
            every = itertools.product(*([label for label, _ in axis.choices] for axis in axes))
            found = [dict(zip(self.axes, labels, strict=True)) for labels in every]
        return found

    def members(self, points: Sequence[Point] | None = None) -> list[Member]:
        """A run for each point (default: `points()`) and seed, in this order.

        Raises:
            PatternError, SpecError: `place` names the axis and the value that do not fit.
        """
        axes = {axis.name: axis for axis in self.read_axes()}
        stacks: dict[str, StackSpec] = {}
        found = []
        for point in self.points() if points is None else points:
            fields = self._fields(axes, point)
            try:
                key = repr((fields.get("stack"), fields.get("start")))
                if key not in stacks:
                    stacks[key] = read_stack_fields(fields)
            except LabError as error:
                raise self.blamed(error, point, "stack") from None
            shown = ", ".join(f"{axis}={label}" for axis, label in point.items())
            for seed in self.seeds:
                name = ", ".join(part for part in (self.name, shown, f"seed {seed}") if part)
                numbered = {"name": name[:NAME_LENGTH], **fields, "seed": seed}
                try:
                    found.append(Member(point, seed, with_stack(stacks[key], numbered)))
                except LabError as error:
                    raise self.blamed(error, point) from None
        return found

    def resolved(self, members: Sequence[Member]) -> SweepSpec:
        """The same sweep with the metric and the direction written out, as the members' tasks have them.

        Raises:
            SpecError: no run measures it, it cannot be told what is better, or tasks differ in it.
        """
        from chimeralab.plugins import registry
        from chimeralab.runs.check import check_metric, make_task

        tasks = [registry().task(name, "task.name") for name in sorted({member.spec.task.name for member in members})]
        metrics = {self.metric or f"validation/{task.metric}" for task in tasks}
        if len(metrics) > 1:
            raise SpecError(f"the tasks have different metrics: {', '.join(sorted(metrics))}", place="metric")
        (metric,) = metrics
        if self.metric.startswith("validation/"):
            for spec in {member.spec.task.model_dump_json(): member.spec.task for member in members}.values():
                check_metric(metric, make_task(spec))
        measured = metric.partition("/")[2].partition("@")[0]
        known = {"max" if task.higher_is_better else "min" for task in tasks if task.metric == measured}
        known = known or {_USUAL[measured]} if measured in _USUAL else known
        if not self.direction and len(known) != 1:
            raise SpecError(f"is more of {metric} better, or less?", place="direction", remedy="Write max or min")
        if len(tasks) > 1 and (self.prune or self.search.kind == "optuna"):
            raise SpecError(
                f"members of different tasks ({', '.join(task.name for task in tasks)}) do not compete",
                place="prune" if self.prune else "search",
                remedy="Make a sweep for each task",
            )
        return self.model_copy(update={"metric": metric, "direction": self.direction or known.pop()})

    def blamed(self, error: LabError, point: Point, field: str = "") -> LabError:
        """The same error with a place that names the axes and values at which it came up.

        Those that set the field at fault (or one beside it) where that is known, else the whole point.
        """
        field = field or error.place.removeprefix("run.").split(":")[0].split(" ")[0]
        axes = {axis.name: axis for axis in self.read_axes()}

        def shares(depth: int) -> list[str]:
            wanted = field.split(".")[:depth]
            return [
                name
                for name, label in point.items()
                if any(path.split(".")[:depth] == wanted for path in axes[name].fields(label))
            ]

        guilty = next((names for depth in (3, 2, 1) if (names := shares(depth))), list(point))
        where = ", ".join(f"{name} = {point[name]}" for name in guilty)
        place = ": ".join(part for part in (f"axes: {where}" if where else "base", error.place) if part)
        return type(error)(error.reason, place=place, remedy=error.remedy)

    def _fields(self, axes: Mapping[str, Axis], point: Point) -> dict[str, Any]:
        fields = deepcopy(self.base)
        for name, label in point.items():
            for path, value in axes[name].fields(label).items():
                set_field(fields, path, value, f"axes: {name} = {label}")
        return fields


def read_sweep(file: Path) -> SweepSpec:
    """The sweep in a YAML or JSON file; without a name it is called as the file is.

    Raises:
        DataError: the file cannot be read. SpecError: it says something that no sweep has.
    """
    written = read_yaml(file)
    return SweepSpec.read({"name": file.stem, **written} if isinstance(written, dict) else written)

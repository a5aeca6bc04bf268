"""StudySpec: a study's file. A question, a sweep at several scales, tables and figures, and published values."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from chimeralab import metrics
from chimeralab.errors import LabError, SpecError, did_you_mean
from chimeralab.runs.check import check_metric, make_task, read_task
from chimeralab.runs.fields import set_field
from chimeralab.stack.match import Quantity, match_width, quantity
from chimeralab.sweeps import SweepSpec
from chimeralab.sweeps.yaml_file import read_yaml

ScaleName = Literal["tiny", "gpu", "paper"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Match(_Spec):
    """Each point of an axis takes the width at which its stack costs as much as one of them does at its own width."""

    axis: str = Field(description="An axis of named points that set stack.pattern")
    same: Quantity
    like: Any = Field(description="The point whose cost the others take")


class Scale(_Spec):
    """The sweep at one size: `tiny` for two CPU cores, `gpu` for minutes of one GPU, `paper` as in the source."""

    about: str = Field(description="What differs from the source, and how long it takes")
    sweep: dict[str, Any] = Field({}, description="Laid over the study's sweep; null takes a field out")
    only: dict[str, list[Any]] = Field({}, description="Of an axis, these values alone")
    metrics: dict[str, str] = Field({}, description="Metric of tables and figures → the one to show in its place here")


class Table(_Spec):
    """The test metric, a row for each value of `rows` and a column for each of `columns`."""

    title: str
    metric: str = Field(description="As runs measure it: test/accuracy, test/accuracy@length=512")
    rows: str = Field(description="An axis of the sweep")
    columns: str = Field("", description="Another, or none")


class Figure(_Spec):
    """The metric over an axis, a curve for each value of `by`."""

    title: str
    metric: str = Field(description="As runs measure it; where x is an axis of the metric, without it")
    x: str = Field(description="An axis of the sweep, or of the metric: length, position, pairs")
    by: str = Field(description="An axis of the sweep")
    log_x: bool = False


class Published(_Spec):
    """A value that others report, for a place in the tables."""

    at: dict[str, Any] = Field(description="Axis → value")
    value: float | tuple[float, float] = Field(description="A number, or the range that sources give")
    metric: str = Field("", description="Default: that of the first table")
    source: str


class StudySpec(_Spec):
    """One study. `read_study` reads it from its file.

    `choose` are axes over which the best value is taken, by the mean of the sweep's metric on validation over seeds;
    tables and figures then report the chosen points' seeds on test.
    """

    name: str = Field(pattern=r"[a-z0-9][a-z0-9-]*", max_length=80)
    title: str
    question: str
    sources: tuple[str, ...] = ()
    text: str = Field("", description="What is done and how to read it; paragraphs")
    needs: dict[str, str] = Field({}, description="Field of the run → what the user must give for it")
    sweep: dict[str, Any] = Field(description="What all scales share: a sweep without a name")
    scales: dict[ScaleName, Scale] = Field(min_length=1)
    match: Match | None = None
    choose: tuple[str, ...] = ()
    tables: tuple[Table, ...] = Field(min_length=1)
    figures: tuple[Figure, ...] = ()
    published: tuple[Published, ...] = ()
    findings: dict[ScaleName, str] = Field({}, description="What was found, written by a person")

    @field_validator("tables", "figures")
    @classmethod
    def _measured(cls, shown: tuple[Any, ...]) -> tuple[Any, ...]:
        for one in shown:
            metrics.parse(one.metric)
        return shown

    def scale(self, name: str) -> Scale:
        """Raises SpecError: the study has no such scale."""
        if name not in self.scales:
            raise SpecError(f"it has no scale {name!r}", place=self._place, remedy=did_you_mean(name, self.scales))
        return self.scales[name]

    def sweep_at(self, scale: str, settings: Mapping[str, Any] | None = None) -> SweepSpec:
        """The sweep at a scale. `settings` are fields of the run by dotted path, laid over its base.

        Raises:
            SpecError: there is no such scale, an axis does not fit, or something that the study needs was not given.
        """
        chosen = self.scale(scale)
        written = _laid_over(deepcopy(self.sweep), chosen.sweep)
        for axis, values in chosen.only.items():
            written["axes"][axis] = self._only(written.get("axes", {}), axis, values, scale)
        base = written.setdefault("base", {})
        for path, value in (settings or {}).items():
            set_field(base, path, value, self._place)
        for path, what in self.needs.items():
            if path not in (settings or {}):
                raise SpecError(f"it needs {path}: {what}", place=self._place, remedy=f"Give --set {path}=…")
        try:
            sweep = SweepSpec.read({"name": f"{self.name}-{scale}", **written})
            return sweep if self.match is None else _matched(sweep, self.match)
        except LabError as error:
            place = f"{self._place}: scale {scale}: {error.place}".removesuffix(": ")
            raise type(error)(error.reason, place=place, remedy=error.remedy) from None

    def checked_sweep(self, scale: str, settings: Mapping[str, Any] | None = None) -> SweepSpec:
        """`sweep_at`, and every task in it measures what the tables and figures show.

        Raises:
            SpecError, DataError: as `sweep_at`, or a metric that a task does not measure.
        """
        sweep = self.sweep_at(scale, settings)
        tasks = {member.spec.task.model_dump_json(): member.spec.task for member in sweep.members()}
        for task in map(make_task, tasks.values()):
            for table in self.tables:
                check_metric(self._metric(table, scale), task, f"{self._place}: tables: {table.title}")
            for figure in self.figures:
                along = "" if figure.x in sweep.axes else figure.x
                check_metric(self._metric(figure, scale), task, f"{self._place}: figures: {figure.title}", along)
        return sweep

    def _metric(self, shown: Table | Figure, scale: str) -> str:
        return self.scale(scale).metrics.get(shown.metric, shown.metric)

    def check(self) -> None:
        """Every scale's members can be described, and tables and published values stand on their axes.

        Raises:
            PatternError, SpecError
        """
        given = dict.fromkeys(self.needs, "given later")
        known: set[str] = set()  # an axis may be there at some scales alone
        shown = {table.metric for table in self.tables} | {figure.metric for figure in self.figures}
        for scale, chosen in self.scales.items():
            sweep = self.sweep_at(scale, given)
            sweep.resolved(sweep.members())
            known |= set(sweep.axes)
            for metric in chosen.metrics:
                if metric not in shown:
                    place = f"{self._place}: scale {scale}: metrics"
                    raise SpecError(f"{metric} is not shown", place=place, remedy=did_you_mean(metric, shown))
        places = [(f"tables: {table.title}", table.rows, *filter(None, [table.columns])) for table in self.tables]
        places += [(f"figures: {figure.title}", figure.by) for figure in self.figures]
        places += [("choose", *self.choose), *(("published", *value.at) for value in self.published)]
        for place, *names in places:
            for name in names:
                if name not in known:
                    remedy = did_you_mean(name, known)
                    raise SpecError(f"there is no axis {name!r}", place=f"{self._place}: {place}", remedy=remedy)

    @property
    def _place(self) -> str:
        return f"study {self.name}"

    def _only(self, axes: Mapping[str, Any], axis: str, values: list[Any], scale: str) -> Any:
        place = f"{self._place}: scale {scale}: only.{axis}"
        written = axes.get(axis)
        if written is None:
            raise SpecError("there is no such axis", place=place, remedy=did_you_mean(axis, axes))
        for value in values:
            if value not in written:
                raise SpecError(
                    f"{value!r} is not on it", place=place, remedy=did_you_mean(str(value), map(str, written))
                )
        return {value: written[value] for value in values} if isinstance(written, Mapping) else list(values)


def read_study(file: Path) -> StudySpec:
    """The study in a YAML file, which is called as its file is.

    Raises:
        DataError: the file cannot be read. SpecError: it says something that no study has.
    """
    from chimeralab.stack.resolve import invalid

    written = read_yaml(file)
    if not isinstance(written, dict):
        raise SpecError("it holds no fields", place=str(file))
    try:
        return StudySpec.model_validate({"name": file.stem, **written})
    except ValidationError as error:
        raise invalid(error, StudySpec, f"study {file.stem}") from None


def _matched(sweep: SweepSpec, match: Match) -> SweepSpec:
    """The sweep with a width written into each point of the axis."""
    place = f"match: {match.axis}"
    axes = {axis.name: axis for axis in sweep.read_axes()}
    named = match.axis in axes and axes[match.axis].named
    points = dict(axes[match.axis].choices) if named else {}
    like = str(match.like)
    if like not in points:
        raise SpecError(f"{like!r} is not a named point of {match.axis}", place=place)
    if "stack.d_model" in sweep.axes:
        raise SpecError("widths are an axis already", place=place, remedy="Leave out match, or the axis stack.d_model")
    stacks = {}
    for label in points:
        point = {**{name: axis.first for name, axis in axes.items()}, match.axis: label}
        (member,) = sweep.model_copy(update={"seeds": (0,)}).members([point])
        stacks[label] = member.spec
    task = read_task(stacks[like].task)
    size = {"vocab_size": task.vocab_size, "sequence_length": task.sequence_length}
    target = quantity(stacks[like].stack, match.same, **size)
    widths = {
        label: match_width(spec.stack, match.same, target, **size).stack.d_model for label, spec in stacks.items()
    }
    chosen = {label: {**points[label], "stack.d_model": width} for label, width in widths.items()}
    return sweep.model_copy(update={"axes": {**sweep.axes, match.axis: chosen}})


def _laid_over(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` field by field over `under`; null takes a field out."""
    for name, value in over.items():
        if value is None:
            under.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(under.get(name), dict):
            _laid_over(under[name], value)
        else:
            under[name] = deepcopy(value)
    return under

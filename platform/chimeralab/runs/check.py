"""Everything about a RunSpec that can be wrong, found before it is queued."""

from __future__ import annotations

from pydantic import ValidationError

from chimeralab import ops
from chimeralab.contracts import Evaluation, MixerConfig, Task
from chimeralab.errors import PluginError, ResourceError, SpecError, did_you_mean
from chimeralab.metrics import POSITION, MetricName, parse, parse_axes
from chimeralab.plugins import registry
from chimeralab.runs.spec import RunSpec, TaskSpec
from chimeralab.runs.start import check_start
from chimeralab.stack.cost import CostReport, cost
from chimeralab.stack.resolve import ResolvedLayer, invalid, resolve


def read_task(spec: TaskSpec) -> Task:
    """The task, before its data is looked for; see `make_task`.

    Raises:
        SpecError: an unknown task or a bad option.
    """
    cls = registry().task(spec.name, "task.name")
    try:
        config = cls.Config(**spec.options)
    except ValidationError as error:
        raise invalid(error, cls.Config, "task.options") from None
    return cls(config)


def make_task(spec: TaskSpec) -> Task:
    """The task, its options checked.

    Raises:
        SpecError, DataError: an unknown task, a bad option, data that is not there.
    """
    task = read_task(spec)
    task.check()
    for place, other in task.evaluation_sets().items():
        parse_axes(place)
        other.check()
        if other.vocab_size != task.vocab_size:
            raise PluginError(
                f"it has {other.vocab_size} ids, and the task {task.vocab_size}",
                place=f"task {spec.name!r}, evaluation set {place}",
                remedy="An evaluation set must have the vocabulary of its task",
            )
    return task


def metric_names(task: Task) -> list[str]:
    """What a run of this task measures on held-out data, but for what depends on the data: by position or class."""
    own = {**task.metrics(Evaluation()), **task.chance()}
    names = [f"{split}/{name}" for split in task.splits if split != "train" for name in own]
    for place, other in task.evaluation_sets().items():
        axes = parse_axes(place)
        names += [str(parse(f"test/{name}").at(axes)) for name in other.metrics(Evaluation())]
    return names


def check_metric(name: str, task: Task, place: str = "metric", along: str = "") -> None:
    """Raise SpecError unless a run of this task measures `name` on held-out data, at values of the axis `along`."""
    known = metric_names(task)
    wanted = parse(name)
    axes = dict(wanted.axes)
    if task.by_position and (along == POSITION or axes.pop(POSITION, None) is not None):
        along = ""  # which positions there are, the run finds
    plain = str(MetricName(wanted.split, wanted.metric).at(axes))
    measured = {_without(one, along) for one in known} if along else known
    if plain not in measured:
        asked = f"{name!r} over {along}" if along else repr(name)
        raise SpecError(f"{type(task).name!r} measures no {asked}", place=place, remedy=did_you_mean(name, known))


def _without(name: str, axis: str) -> str:
    """The metric of a place without this axis; "" where it has none such."""
    try:
        one = parse(name)
    except SpecError:  # a task may name what it measures in another way
        return ""
    axes = dict(one.axes)
    return str(MetricName(one.split, one.metric).at(axes)) if axes.pop(axis, None) is not None else ""


def check(spec: RunSpec) -> CostReport:
    """Check stack, task and kernels; returns what the run will cost.

    Raises:
        SpecError, DataError, KernelError
    """
    layers = resolve(spec.stack)
    ops.check_pins(spec.kernels)
    task = make_task(spec.task)
    if task.causal:
        _check_sight(layers, spec.task.name)
    _check_grid(layers, task)
    if 0 < spec.stack.positions < task.sequence_length:
        raise SpecError(
            f"learned positions for {spec.stack.positions} tokens, and sequences of {task.sequence_length}",
            place="stack.positions",
            remedy="Give the stack more positions, or the task shorter sequences",
        )
    if task.tells and not spec.stack.condition_width:
        raise SpecError(
            f"task {task.name!r} tells a level of noise and a class, and this stack does not listen",
            place="stack.residual",
            remedy="Take residual=adaptive (as DiT has) or residual=scaled (as HDiT has)",
        )
    check_start(spec, task.ends)
    gpu = spec.resources.gpus > 0
    if spec.train.cuda_graph and not gpu:
        raise SpecError(
            "a CUDA graph needs a GPU",
            place="train.cuda_graph",
            remedy="Ask for one with resources.gpus, or leave it out",
        )
    narrow = spec.train.precision == "bfloat16" or (gpu and spec.train.precision == "auto")
    return cost(
        spec.stack,
        **task.ends,
        batch_size=spec.train.batch_size,
        sequence_length=task.sequence_length,
        precision="bfloat16" if narrow else "float32",
        fused=gpu,
    )


def _check_sight(layers: list[ResolvedLayer], task: str) -> None:
    for index, layer in enumerate(layers):
        if not layer.causal:
            raise SpecError(
                f"{layer.mixer.name!r} sees the future, and in this task the future holds the answers",
                place=f"layer {index}: {layer.mixer.name}, task {task!r}",
                remedy="Take a causal mixer, or a task whose answers are hidden, such as text with mask=0.15",
            )


def _check_grid(layers: list[ResolvedLayer], task: Task) -> None:
    for index, layer in enumerate(layers):
        wanted = layer.config.grid_columns if isinstance(layer.config, MixerConfig) else None
        if wanted not in (None, task.grid_columns):
            there = f"rows of {task.grid_columns}" if task.grid_columns else "no rows of a grid"
            raise SpecError(
                f"it reads rows of {wanted} tokens, and task {task.name!r} gives {there}",
                place=f"layer {index}: {layer.mixer.name}.columns",
                remedy=f"Write columns={task.grid_columns}" if task.grid_columns else "Leave columns out",
            )


def check_memory(report: CostReport, available: int, where: str) -> None:
    """Raises ResourceError where training needs more bytes than `available`."""
    if report.training_bytes <= available:
        return
    parts = ", ".join(f"{part} {_gib(size)}" for part, size in report.memory.items())
    raise ResourceError(
        f"training would take about {_gib(report.training_bytes)} ({parts}); {where} has {_gib(available)}",
        place="train.batch_size",
        remedy="Lower batch_size and raise accumulate, shorten the sequences, or make the stack smaller",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

"""One attempt of a run, from spec to profile."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import chimeralab
from chimeralab import ops
from chimeralab.contracts import Task
from chimeralab.errors import RunFailed
from chimeralab.events import Environment, Log, Progress
from chimeralab.plugins import registry
from chimeralab.runs import device as devices
from chimeralab.runs.check import make_task
from chimeralab.runs.profile import profile_decoding, profile_training
from chimeralab.runs.sink import Sink
from chimeralab.runs.spec import RunSpec
from chimeralab.runs.start import begin
from chimeralab.runs.trainer import Cancelled, Trainer
from chimeralab.stack.build import build
from chimeralab.stack.model import StackModel
from chimeralab.stack.resolve import resolve


def execute(
    spec: RunSpec, *, folder: Path, cache: Path, sink: Sink, resume: Path | None = None, best: Path | None = None
) -> None:
    """Train, evaluate and profile.

    Args:
        folder: the attempt's own, where nobody else writes; checkpoints go there.
        cache: shared by all runs; tasks keep prepared data there.
        resume: a checkpoint to go on from.
        best: the best one so far; a better one takes its place.

    Raises:
        RunFailed, DataError, SpecError: with the reason that a person should read.
        Cancelled: the sink asked to stop.
    """
    device = devices.pick(spec.resources.gpus)
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(spec.resources.cpus)))
    else:
        torch.set_float32_matmul_precision("high")
    for refused in ops.tiles.load(cache / ops.tiles.FILE):
        sink.emit(Log(level="warning", message=f"tiles of kernels are not used: {refused}"))
    try:
        with ops.pin(spec.kernels):
            _execute(spec, folder, cache, sink, resume, best, device)
    except torch.OutOfMemoryError as error:
        raise RunFailed(
            f"out of memory on {devices.name(device)}: {str(error).splitlines()[0]}",
            remedy="Lower batch_size (raise accumulate to keep the recipe), or ask for a larger device",
        ) from error


def _execute(
    spec: RunSpec, folder: Path, cache: Path, sink: Sink, resume: Path | None, best: Path | None, device: torch.device
) -> None:
    task = make_task(spec.task)
    sink.emit(Progress(step=0, total=spec.train.steps, seconds=0, tokens_per_second=0, phase="prepare"))

    def report(message: str) -> None:
        sink.emit(Log(message=message))

    task.prepare(cache, report)
    tests = task.evaluation_sets()
    for other in tests.values():
        other.prepare(cache, report)
    model = build(spec.stack, **task.ends, device=device, seed=spec.seed)
    dtype = devices.precision(spec.train.precision, device)
    sink.emit(Environment(values=_environment(model, task, device, dtype)))

    trainer = Trainer(spec, model, task, device, folder, sink, tests)
    if resume is None:
        started = begin(spec, model)
        if started:
            report(started)
    else:
        trainer.resume(resume, best)
        sink.emit(Log(message=f"resumed from {resume.name}"))
    position = trainer.run()

    if spec.profile.contexts:
        told = Progress(
            step=position.step,
            total=spec.train.steps,
            seconds=position.seconds,
            tokens_per_second=0,
            phase="profile",
        )
        sink.emit(told)
        sink.emit(profile_training(model, task, spec.train, device, dtype))
        trainer.optimizer.state.clear()
        if not model.writes:
            report("the model writes no tokens: there is no decoding to profile")
        elif all(layer.causal for layer in resolve(spec.stack)):
            for measured in profile_decoding(model, spec.profile, device, dtype):
                if sink.stop_requested():
                    raise Cancelled
                sink.emit(measured)
        else:
            report("the stack sees whole sequences: there is no decoding to profile")
    trainer.retention.prune()  # by now the last checkpoints are likely to be acknowledged


def _environment(model: StackModel, task: Task, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What ran where; the kernels are those that one short forward pass takes."""
    length = min(task.sequence_length, 2 * ops.CHUNK)
    inputs = (
        torch.zeros(1, length, task.input_features, device=device)
        if task.input_features
        else torch.zeros(1, length, dtype=torch.long, device=device)
    )
    with (
        ops.record() as calls,
        torch.no_grad(),
        torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
    ):
        model(inputs)
    return {
        "device": devices.name(device),
        "precision": str(dtype).removeprefix("torch."),
        "kernels": {call.op: call.tier for call in calls},
        "parameters": model.parameter_count(),
        "data": task.describe(),
        "chance": task.chance(),
        "threads": torch.get_num_threads(),
        "versions": {
            "chimeralab": chimeralab.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "plugins": {p.name: p.version for p in registry().plugins.values() if p.state == "active"},
        "host": platform.node(),
        "pid": os.getpid(),
    }

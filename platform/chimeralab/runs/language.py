"""Language tests of a trained run: whether it can take them, and how its checkpoint is measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from chimeralab.contracts import Task
from chimeralab.contracts.task import TOKENS
from chimeralab.errors import DataError, RequestError, SpecError
from chimeralab.events import Metrics
from chimeralab.runs import device as devices
from chimeralab.runs.check import make_task
from chimeralab.runs.checkpoint import load_weights
from chimeralab.runs.spec import RunSpec
from chimeralab.stack.build import build
from chimeralab.stack.resolve import resolve

SPLIT = "lm_eval"


def check_language(spec: RunSpec) -> Task:
    """The task whose tokenizer the model knows.

    Raises:
        RequestError: the harness is not installed. SpecError: the run's model writes no text.
    """
    if find_spec("lm_eval") is None:
        raise RequestError(
            "lm-evaluation-harness is not installed", place=SPLIT, remedy="pip install 'chimeralab[lm-eval]'"
        )
    task = make_task(spec.task)
    if not task.has_text:
        raise SpecError(f"task {task.name!r} has no text", place=SPLIT, remedy="Train on the task text")
    if not task.causal or not all(layer.causal for layer in resolve(spec.stack)):
        raise SpecError(
            "the model sees the whole text, and the tests ask what comes next",
            place=SPLIT,
            remedy="Train on the task text without a mask, with causal mixers",
        )
    return task


def evaluate_language(
    spec: RunSpec,
    checkpoint: Path,
    cache: Path,
    tests: Sequence[str],
    *,
    length: int | None = None,
    limit: int | None = None,
    shots: int | None = None,
) -> Metrics:
    """Measure a checkpoint by tests of the lm-evaluation-harness; see `chimeralab.runs.harness.measure`.

    `length` is that of training unless said otherwise. The metrics are `lm_eval/test/metric`.

    Raises:
        RequestError, SpecError, DataError
    """
    task = check_language(spec)
    from chimeralab.runs.harness import measure

    task.prepare(cache)
    at = json.loads((checkpoint / "position.json").read_text())["position"]
    if at["data"].get(TOKENS) != task.describe().get(TOKENS):
        raise DataError(
            "the tokenizer is another than in training: the text that it was learned from has changed",
            place=SPLIT,
            remedy="Put back the text that the run was trained on",
        )
    device = devices.pick(1)
    model = build(spec.stack, **task.ends, device=device)
    load_weights(checkpoint, model)
    room = [model.room] if model.room is not None else []
    found = measure(
        model,
        task,
        tests,
        length=min([length or task.sequence_length, *room]),
        device=device,
        cache=cache,
        limit=limit,
        shots=shots,
    )
    values = {f"{SPLIT}/{name}": value for name, value in found.items()}
    return Metrics(step=at["step"], tokens=at["tokens"], seconds=at["seconds"], values=values)

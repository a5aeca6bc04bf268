"""What holds for every task whose sequences are computed; what each one's are is tested beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chimeralab import RunSpec
from chimeralab.contracts import IGNORE
from chimeralab.events import Metrics
from chimeralab.plugins import registry
from chimeralab.runs.check import check, make_task, metric_names
from chimeralab.runs.execute import execute
from chimeralab.runs.sink import Listing
from chimeralab.stack.compose import compose
from chimeralab_plugins.tasks.generated import GeneratedTask
from chimeralab_plugins.tasks.memorization import Memorization
from small_tasks import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATED = {name: task for name, task in registry().tasks.items() if issubclass(task, GeneratedTask)}


@pytest.mark.parametrize("name", [*GENERATED, "mqar_mixed"])
def test_it_trains_and_the_loss_falls(name: str, tmp_path: Path) -> None:
    options = SMALL[name] if name == "mqar_mixed" else {**SMALL[name], "validation_examples": 64}
    spec = RunSpec.model_validate(
        {
            "stack": compose("attention[heads=2] x2, ffn=swiglu[hidden=64]", d_model=32),
            "task": {"name": name, "options": options},
            "train": {
                "steps": 80,
                "batch_size": 32,
                "lr": 1e-2,
                "warmup_steps": 5,
                "log_every": 1,
                "eval_every": 80,
                "checkpoint_every": 80,
            },
            "profile": {"contexts": []},
        }
    )
    check(spec)
    events = Listing()
    execute(spec, folder=tmp_path / "run", cache=tmp_path / "cache", sink=events)
    curve = [e.values["train/loss"] for e in events.events if isinstance(e, Metrics) and "train/loss" in e.values]
    assert sum(curve[-10:]) < 0.97 * sum(curve[:10])
    (last,) = [e.values for e in events.events if isinstance(e, Metrics) and "validation/accuracy" in e.values]
    assert f"validation/{registry().tasks[name].metric}" in last
    measured = {key for e in events.events if isinstance(e, Metrics) for key in e.values}
    task = make_task(spec.task)
    assert {key for key in metric_names(task) if key.startswith("test/")} <= measured


@pytest.mark.parametrize("name", GENERATED)
def test_validation_counts_every_sequence_once_whatever_the_batch_size(name: str) -> None:
    cls = GENERATED[name]
    task = cls(cls.Config(**SMALL[name], validation_examples=10))
    whole = task.batch("validation", 0, 10)
    for size in (1, 4, 16):
        steps = task.evaluation_steps(size)
        batches = [task.batch("validation", step, size, seed=step, rank=step) for step in range(steps)]
        counted = [(b.targets != IGNORE).any(1) for b in batches]
        inputs = torch.cat([b.inputs[rows] for b, rows in zip(batches, counted, strict=True)])
        assert torch.equal(inputs, whole.inputs)
        assert torch.equal(task.batch("validation", steps, size).inputs, batches[0].inputs)


@pytest.mark.parametrize("name", GENERATED)
def test_splits_and_data_seeds_hold_different_sequences(name: str) -> None:
    cls = GENERATED[name]
    for options in ({"data_seed": 0}, {"data_seed": 1}):
        task = cls(cls.Config(**options))
        assert not torch.equal(task.batch("validation", 0, 8).inputs, task.batch("test", 0, 8).inputs)
    other = cls(cls.Config(data_seed=0)).batch("validation", 0, 8).inputs
    assert not torch.equal(task.batch("validation", 0, 8).inputs, other)


def test_a_finite_set_comes_again_in_another_order_and_an_endless_one_does_not() -> None:
    def epoch(number: int, seed: int = 0, rank: int = 0, examples: int | None = 40) -> list[tuple[int, ...]]:
        task = Memorization(Memorization.Config(train_examples=examples))
        steps = [task.batch("train", 5 * number + i, 8, seed=seed, rank=rank).inputs for i in range(5)]
        return [tuple(row) for row in torch.cat(steps).tolist()]

    others = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    first, endless = epoch(0), epoch(0, examples=None)
    assert len(set(first)) == 40
    for other in others:
        assert epoch(*other) != first
        assert sorted(epoch(*other)) == sorted(first)
        assert not set(epoch(*other, examples=None)) & set(endless)

"""After which runs a worker may take another, and what is left of a run then."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from chimeralab import RunSpec
from chimeralab.errors import RunFailed
from chimeralab.runs import execute as execution
from chimeralab.runs.sink import Listing
from chimeralab.runs.trainer import Cancelled
from chimeralab.scheduling.worker import RunWorker, _forget
from chimeralab.stack.compose import compose
from chimeralab.stack.model import StackModel


@pytest.fixture
def worker(tmp_path: Path) -> RunWorker:
    made = RunWorker.__new__(RunWorker)  # without its threads
    made.home, made.name = tmp_path, "test"
    return made


def spec_of(**train: Any) -> dict[str, Any]:
    task = {"name": "mqar", "options": {"vocab_size": 32, "sequence_length": 16, "pairs": 1}}
    recipe = {"steps": 3, "batch_size": 2, "eval_batches": 1, "sample_tokens": 0, **train}
    stack = compose("attention[heads=2]", d_model=16)
    spec = RunSpec.model_validate({"stack": stack, "task": task, "train": recipe, "profile": {"contexts": []}})
    return spec.model_dump(mode="json")


def models_alive() -> int:
    return sum(isinstance(thing, StackModel) for thing in gc.get_objects())


def test_a_run_that_ended_well_leaves_no_model_behind(worker: RunWorker) -> None:
    gc.collect()
    before = models_alive()
    sink = Listing()
    assert worker._execute(1, 1, spec_of(), {}, sink) == ("completed", "", True)
    assert any(event.kind == "metrics" for event in sink.events)
    assert _forget()
    gc.unfreeze()
    assert models_alive() == before


def test_a_loss_that_is_not_finite_harms_the_run_alone(worker: RunWorker) -> None:
    status, reason, reusable = worker._execute(1, 1, spec_of(lr=1e30, warmup_steps=0, clip=0, steps=20), {}, Listing())
    assert (status, reusable) == ("failed", True)
    assert "the loss is" in reason


def test_a_spec_that_this_version_cannot_read_fails_its_run_and_says_why(worker: RunWorker) -> None:
    status, reason, _ = worker._execute(1, 1, {**spec_of(), "from_a_later_version": 1}, {}, Listing())
    assert status == "failed"
    assert "from_a_later_version" in reason


def out_of_memory() -> RunFailed:
    error = RunFailed("out of memory on a GPU")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    return error


@pytest.mark.parametrize(
    ("error", "status", "reusable"),
    [
        (Cancelled(), "cancelled", True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "failed", False),
        (out_of_memory(), "failed", False),
        (ZeroDivisionError("a plugin's own"), "failed", False),
    ],
)
def test_an_error_that_may_have_harmed_the_process_ends_it(
    worker: RunWorker, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, reusable: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(execution, "execute", fail)
    ended, _, good = worker._execute(1, 1, spec_of(), {}, Listing())
    assert (ended, good) == (status, reusable)

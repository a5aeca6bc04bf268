"""Every task that is registered, trained as a user trains it: submitted to a lab, taken by a worker of its cluster."""

from __future__ import annotations

import math
from typing import Any

import pytest

from chimeralab import Lab, SweepSpec
from chimeralab.plugins import registry
from chimeralab.runs.check import make_task, metric_names
from small_tasks import SMALL

pytestmark = pytest.mark.cluster

PICTURES = {"stack.pattern": "bidirectional_attention[heads=2, rope=false], ffn=mlp", "stack.positions": 64}
POINTS: dict[str, dict[str, Any]] = {
    **{name: {"task.name": name, "task.options": options} for name, options in SMALL.items()},
    "text": {"task.name": "text", "task.options": {"sequence_length": 32, "validation_tokens": 1024}},
    "images": {"task.name": "images", "task.options": {}, **PICTURES},
    "diffusion": {
        "task.name": "diffusion",
        "task.options": {"drawn": 40, "steps": 4},
        "stack.residual": "adaptive",
        **PICTURES,
        "stack.positions": 16,
    },
}


def test_every_task_trains_and_is_tested(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tmp_path_factory.mktemp("text")
    for number in range(40):
        (source / f"{number}.txt").write_text(f"The number of the day is {number}. " * 40)
    POINTS["text"]["task.options"]["source"] = str(source)
    assert set(registry().tasks) == set(POINTS)
    spec = SweepSpec.read(
        {
            "name": "tasks",
            "base": {
                "stack": {"pattern": "attention[heads=2], ffn=swiglu[hidden=32]", "d_model": 16},
                "task": {"name": "mqar", "options": {}},
                "train": {
                    "steps": 60, "batch_size": 16, "lr": 1e-2, "warmup_steps": 5, "log_every": 1, "eval_every": 60,
                    "eval_batches": 1, "checkpoint_every": 60, "sample_tokens": 0,
                },
                "profile": {"contexts": []},
            },
            "axes": {"task": POINTS},
            "at_once": 2,
            "metric": "validation/loss",
        }
    )  # fmt: skip
    lab.sweep(spec)
    lab.wait_sweep("tasks", timeout=400)
    rows = [lab.run(run) for run in lab.sweep_table("tasks").run_ids]
    assert [row.status for row in rows] == ["completed"] * len(POINTS), [row.status_reason for row in rows]
    for row in rows:
        run, found = lab.spec(row.id), lab.summaries([row.id])[row.id]
        wanted = {name for name in metric_names(make_task(run.task)) if name.startswith(("validation/", "test/"))}
        assert wanted <= set(found), (run.task.name, wanted - set(found))
        assert all(math.isfinite(found[name].last) for name in wanted), run.task.name
        losses = lab.curve(row.id, "train/loss").y
        assert sum(losses[-10:]) < sum(losses[:10]), run.task.name

"""Specs of runs that take seconds, on a real corpus of their own."""

from __future__ import annotations

from typing import Any

from chimeralab import RunSpec
from chimeralab.lab import Lab

PATTERN = "mamba2[head_dim=16, d_state=16], attention[heads=2]"


def small_spec(lab: Lab, pattern: str = PATTERN, **fields: Any) -> RunSpec:
    """Width 32, 64-token sequences of the standard library's source."""
    train = {
        "steps": 60,
        "batch_size": 4,
        "warmup_steps": 5,
        "log_every": 2,
        "eval_every": 20,
        "eval_batches": 2,
        "checkpoint_every": 10,
        "sample_tokens": 8,
        **fields.pop("train", {}),
    }
    task = {"name": "text", "options": {"sequence_length": 64}}
    settings = {"task": task, "profile": {"contexts": [16, 32], "decode_tokens": 4}, **fields}
    return RunSpec.model_validate({"stack": lab.compose(pattern, d_model=32), "train": train, **settings})


def curve_of(lab: Lab, run_id: int) -> dict[str, tuple[list[int], list[float]]]:
    """Everything a run measured that does not depend on the clock or the machine: {metric: (steps, values)}."""
    timed = ("tokens_per_second", "flops_utilisation", "peak_memory_bytes")
    names = [name for name in lab.metrics(run_id) if not name.endswith(timed)]
    curves = {name: lab.curve(run_id, name) for name in names}
    return {name: (curve.steps, curve.y) for name, curve in curves.items()}

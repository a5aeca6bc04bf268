"""Runs side by side: quality, speed, memory, and where their specs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from chimeralab.seed_groups import Measured, SeedGroup, StackPair, seed_groups, stack_pairs
from chimeralab.store import Store

PASSED_OVER = {"stack.layers", "name", "tags", "notes"}  # of differences: shown in the rows, or words for people


class ComparedRun(BaseModel):
    """One row. Anything not measured (yet) is None or missing."""

    id: int
    name: str
    pattern: str
    task: str
    status: str
    params: int | None = None
    step: int = 0
    loss: float | None = None  # validation, last
    accuracy: float | None = None
    bits_per_byte: float | None = None
    tokens_per_second: float | None = None  # of a training step, profiled; until then of training
    bytes_per_second: float | None = None  # the same in bytes of text, which compares across tokenizers
    peak_memory_bytes: float | None = None  # of training
    flops_utilisation: float | None = None
    prefill_ms: dict[int, float] = {}  # by context length
    decode_ms: dict[int, float] = {}
    state_bytes: dict[int, float] = {}
    held_out: dict[str, float] = {}  # all that was measured on validation and test, last, by metric


class Comparison(BaseModel):
    """`differences` maps a dotted field of the specs to each run's value, where they are not all equal.

    `groups` are the runs that differ by seed alone, `pairs` the stacks that were measured on the same seeds.
    """

    rows: list[ComparedRun]
    differences: dict[str, dict[int, Any]]
    groups: list[SeedGroup] = []
    pairs: list[StackPair] = []

    @property
    def seeded(self) -> bool:
        """Whether some runs differ by seed alone."""
        return any(len(group.runs) > 1 for group in self.groups)


def compare(store: Store, run_ids: Sequence[int]) -> Comparison:
    """Compare runs, in the order given.

    Raises:
        StoreError: one of them does not exist.
    """
    summaries = store.summaries(run_ids)
    profiles = store.profiles(run_ids)
    rows, specs, measured = [], {}, []
    for run_id in run_ids:
        run = store.run(run_id)
        specs[run_id] = _flat(run.spec)
        last = {name: summary.last for name, summary in summaries[run_id].items()}
        environments = store.events(run_id, kinds=["environment"])
        values = environments[-1].payload if environments else {}
        row = ComparedRun(
            id=run.id,
            name=run.name,
            pattern=run.pattern,
            task=run.task,
            status=run.status,
            step=run.step,
            params=values.get("parameters"),
            loss=last.get("validation/loss"),
            accuracy=last.get("validation/accuracy"),
            bits_per_byte=last.get("validation/bits_per_byte"),
            tokens_per_second=last.get("train/tokens_per_second"),
            peak_memory_bytes=last.get("train/peak_memory_bytes"),
            flops_utilisation=last.get("train/flops_utilisation"),
            held_out={name: value for name, value in last.items() if not name.startswith("train/")},
        )
        for profile in profiles:
            if profile.run_id != run_id:
                continue
            if profile.name == "train":
                row.tokens_per_second = profile.values["tokens_per_second"]
            elif profile.name == "prefill":
                row.prefill_ms[profile.context] = profile.values["prefill_ms"]
            else:
                row.decode_ms[profile.context] = profile.values["decode_ms"]
                row.state_bytes[profile.context] = profile.values["state_bytes"]
        data = values.get("data") or {}
        if row.tokens_per_second and data.get("train tokens") and data.get("train bytes"):
            row.bytes_per_second = row.tokens_per_second * (data["train bytes"] / data["train tokens"])
        rows.append(row)
        about = {"id": run.id, "pattern": run.pattern, "task": run.task, "completed": run.status == "completed"}
        measured.append(Measured(**about, spec=run.spec, values=row.held_out))
    groups, pairs = seed_groups(measured), stack_pairs(measured)
    return Comparison(rows=rows, differences=_differences(specs), groups=groups, pairs=pairs)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted fields; the layers count as one field."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found.update(_flat(inner, f"{prefix}.{key}" if prefix else key))
    return found


def _differences(specs: dict[int, dict[str, Any]]) -> dict[str, dict[int, Any]]:
    shown: dict[str, dict[int, Any]] = {}
    for field in sorted({field for spec in specs.values() for field in spec} - PASSED_OVER):
        values = {run_id: spec.get(field) for run_id, spec in specs.items()}
        if len({repr(value) for value in values.values()}) > 1:
            shown[field] = values
    return shown

"""From the launch form to run specs."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field

from chimeralab import RunSpec, SpecError, StackSpec

MAX_SEEDS = 32


class LaunchForm(BaseModel):
    """The form as the browser holds it; `RunSpec` checks its parts."""

    rev: int = 0
    name: str = ""
    project: str = ""
    task: dict[str, Any] = {}
    train: dict[str, Any] = {}
    profile: dict[str, Any] = {}
    start: dict[str, Any] = {}  # without a folder: weights are drawn
    seeds: str = Field("0", max_length=500)
    resources: dict[str, Any] = {}
    kernels: dict[str, str] = {}
    max_attempts: int = RunSpec.model_fields["max_attempts"].default
    tags: tuple[str, ...] = ()
    notes: str = ""

    def specs(self, stack: StackSpec) -> list[RunSpec]:
        """One spec for each seed.

        Raises:
            LabError: the seeds cannot be read. pydantic.ValidationError: a field is wrong.
        """
        seeds = read_seeds(self.seeds)
        return [self._spec(stack, seed, len(seeds) > 1) for seed in seeds]

    def _spec(self, stack: StackSpec, seed: int, several: bool) -> RunSpec:
        name = self.name.strip() or (stack.text if several else "")
        return RunSpec(
            name=f"{name[:180]}, seed {seed}" if several else name[:200],
            project=self.project.strip() or "default",
            stack=stack,
            task=self.task,
            train=self.train,
            profile=self.profile,
            start=self.start if self.start.get("folder") else None,
            seed=seed,
            kernels=self.kernels,
            resources=self.resources,
            max_attempts=self.max_attempts,
            tags=self.tags,
            notes=self.notes,
        )


def read_seeds(text: str) -> list[int]:
    """`0, 1, 2` or `0-4`, or both.

    Raises:
        LabError
    """
    seeds: list[int] = []
    for word in re.split(r"[,\s]+", text.strip()):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word)
        if not found:
            raise SpecError(f"cannot read {word!r}", place="seed", remedy="Write numbers: 0, 1, 2 or 0-4")
        first, last = int(found[1]), int(found[2] or found[1])
        if last - first >= MAX_SEEDS:
            raise SpecError(f"more than {MAX_SEEDS} seeds at once", place="seed")
        seeds += range(first, last + 1)
    if len(seeds) > MAX_SEEDS:
        raise SpecError(f"more than {MAX_SEEDS} seeds at once", place="seed")
    return list(dict.fromkeys(seeds))


def form_of(spec: RunSpec) -> dict[str, Any]:
    """The form's value that repeats a run."""
    dumped = spec.model_dump(mode="json", exclude_defaults=True)
    return {
        "rev": 0,
        "name": spec.name,
        "project": spec.project,
        "task": {"name": spec.task.name, "options": dict(spec.task.options)},
        "train": dumped.get("train", {}),
        "profile": dumped.get("profile", {}),
        "start": dumped.get("start", {}),
        "seeds": str(spec.seed),
        "resources": dumped.get("resources", {}),
        "kernels": dict(spec.kernels),
        "max_attempts": spec.max_attempts,
        "tags": list(spec.tags),
        "notes": spec.notes,
    }

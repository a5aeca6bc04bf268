"""The hooks. A plugin is a module (or object) behind an entry point of the group `chimeralab`;
it implements any of these with `@chimeralab.hookimpl`.

The `register_*` hooks are asked once, when something of their kind is first needed. The `run_*` hooks are called
by the process that writes the store, after the write, and once; what they raise is logged and harms no run. The
dispatcher calls them one after another on a thread of their own, so a slow one delays other plugins and no run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from chimeralab.contracts import FeedForward, Kernel, Mixer, Page, Preset, Task

API_VERSION = 1
"""Raised when a contract or hook changes so that a plugin must be changed too. A plugin module may state the version
it was written for as `CHIMERALAB_API = 1`; one that states another is listed as incompatible and not used."""

hookspec = pluggy.HookspecMarker("chimeralab")
hookimpl = pluggy.HookimplMarker("chimeralab")


@hookspec
def register_mixers() -> Sequence[type[Mixer]]:  # type: ignore[empty-body]
    """Mixer classes, each with a unique `name`."""


@hookspec
def register_feed_forwards() -> Sequence[type[FeedForward]]:  # type: ignore[empty-body]
    """Feed-forward classes, each with a unique `name`."""


@hookspec
def register_tasks() -> Sequence[type[Task]]:  # type: ignore[empty-body]
    """Task classes, each with a unique `name`."""


@hookspec
def register_kernels() -> Sequence[Kernel]:  # type: ignore[empty-body]
    """Implementations of ops, unique by (op, tier)."""


@hookspec
def register_presets() -> Sequence[Preset]:  # type: ignore[empty-body]
    """Whole stacks by name."""


@hookspec
def register_studies() -> Sequence[Path]:  # type: ignore[empty-body]
    """YAML files of studies; a study is called as its file is."""


@hookspec
def register_pages() -> Sequence[Page]:  # type: ignore[empty-body]
    """Pages of the dashboard, unique by path."""


@hookspec
def run_started(run_id: int, attempt: int, spec: dict[str, Any]) -> None:
    """A worker has begun an attempt of a run."""


@hookspec
def run_progress(run_id: int, step: int, total: int, metrics: dict[str, float]) -> None:
    """New metrics of a run are in the store."""


@hookspec
def run_finished(run_id: int, status: str, reason: str) -> None:
    """A run has ended as completed, failed, cancelled or pruned."""

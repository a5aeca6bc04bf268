"""Chimera Lab: compose hybrid sequence models, see their cost, train them, compare them.

The names below are the public face: what a notebook, a plugin and the dashboard import. They load on first use,
so `import chimeralab` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_FACE = {
    "Lab": "chimeralab.lab",
    "Comparison": "chimeralab.comparison",
    "RunFilter": "chimeralab.lab",
    "RunSpec": "chimeralab.runs",
    "SweepSpec": "chimeralab.sweeps",
    "StackSpec": "chimeralab.stack",
    "LayerSpec": "chimeralab.stack",
    "parse": "chimeralab.stack",
    "Branch": "chimeralab.stack.branch",
    "Mixer": "chimeralab.contracts",
    "MixerConfig": "chimeralab.contracts",
    "LayerConfig": "chimeralab.contracts",
    "FeedForward": "chimeralab.contracts",
    "FeedForwardConfig": "chimeralab.contracts",
    "Task": "chimeralab.contracts",
    "TaskConfig": "chimeralab.contracts",
    "Batch": "chimeralab.contracts",
    "Kernel": "chimeralab.contracts",
    "Tuning": "chimeralab.contracts",
    "Cost": "chimeralab.contracts",
    "State": "chimeralab.contracts",
    "Context": "chimeralab.contracts",
    "Place": "chimeralab.contracts",
    "ParamGroup": "chimeralab.contracts",
    "Preset": "chimeralab.contracts",
    "Size": "chimeralab.contracts",
    "Page": "chimeralab.contracts",
    "hookimpl": "chimeralab.hookspecs",
    "LabError": "chimeralab.errors",
    "SpecError": "chimeralab.errors",
    "DataError": "chimeralab.errors",
    "KernelError": "chimeralab.errors",
}
__all__ = [*_FACE, "__version__", "ops"]  # noqa: PLE0604

if TYPE_CHECKING:
    from chimeralab import ops as ops


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_module("chimeralab.ops")
    if name in _FACE:
        return getattr(import_module(_FACE[name]), name)
    raise AttributeError(f"module 'chimeralab' has no attribute {name!r}")

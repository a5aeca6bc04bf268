"""A run: its spec, the one trainer, evaluation, profiling, checkpoints. Knows no Ray, no SQL, no web: it emits events.

This face needs no torch; `chimeralab.runs.execute` does the work.
"""

from chimeralab.runs.spec import ProfileSpec, Resources, RunSpec, TaskSpec, TrainSpec

__all__ = ["ProfileSpec", "Resources", "RunSpec", "TaskSpec", "TrainSpec"]

"""Which checkpoints stay: the newest, the best, and every one that the store may still name."""

from __future__ import annotations

import shutil
from pathlib import Path

from chimeralab.events import Checkpoint
from chimeralab.runs.sink import Sink


class Retention:
    """Announces checkpoints and deletes those that newer ones replace, once the replacement is acknowledged.

    A worker may die between writing a checkpoint and the store's learning of it; the next attempt starts from the
    checkpoint that the store names, so that one must still be there.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._named: dict[str, list[tuple[int, Path]]] = {"newest": [], "best": []}

    def announce(self, role: str, path: Path, step: int, bytes: int, metrics: dict[str, float]) -> None:
        event = Checkpoint(step=step, path=str(path), bytes=bytes, role=role, metrics=metrics)
        self._named[role].append((self.sink.emit(event), path))

    def adopt(self, role: str, path: Path) -> None:
        """A checkpoint of an earlier attempt that the store names already."""
        self._named[role].append((0, path))

    def prune(self) -> None:
        gone: set[Path] = set()
        for role, named in self._named.items():
            known = [index for index, (seq, _) in enumerate(named) if seq <= self.sink.acknowledged]
            if known:
                gone |= {path for _, path in named[: known[-1]]}
                self._named[role] = named[known[-1] :]
        kept = {path for named in self._named.values() for _, path in named}
        for path in gone - kept:
            shutil.rmtree(path, ignore_errors=True)

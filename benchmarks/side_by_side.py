"""Processes that prepare side by side and are then timed one after the other.

A process says "ready" when all that it needs is compiled, waits for a line, prints what it measured as lines of JSON
and ends with "done". Nothing else runs while one is timed, once all are ready.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SideBySide:
    """Runs `command` + [name] for each name; `outcomes` has what each printed, `troubles` why one printed nothing."""

    command: Sequence[str]
    environment: Mapping[str, str]
    jobs: int
    prepare: float  # seconds after which those that are ready are timed, and the others ended
    seconds: float  # of it all
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)

    def run(self, names: Sequence[str]) -> None:
        self._start, self._waiting, self._timing = time.monotonic(), list(names), ""
        self._told: queue.Queue[tuple[str, str]] = queue.Queue()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._ready: list[str] = []
        self._last: dict[str, str] = {}
        told_of: set[str] = set()
        open_names = set(names)
        try:
            while open_names and time.monotonic() - self._start < self.seconds:
                if time.monotonic() - self._start < self.prepare:
                    self._start_some(open_names)
                else:
                    open_names -= self._give_up(open_names)
                self._time_one(open_names)
                try:
                    name, line = self._told.get(timeout=1)
                except queue.Empty:
                    continue
                if line.startswith("{"):
                    self.outcomes.append(json.loads(line))
                    told_of.add(name)
                elif line == "ready":
                    self._ready.append(name)
                elif line == "done":
                    self._timing = ""
                elif line == "ended":
                    self._timing = "" if self._timing == name else self._timing
                    if name in open_names and name not in told_of:
                        self.troubles[name] = f"its process ended: {self._last.get(name, '')}"[:300]
                    open_names.discard(name)
                else:
                    self._last[name] = line
        finally:
            for process in self._processes.values():
                process.kill()
        self.troubles |= {name: "not finished in time" for name in open_names if name not in told_of}

    def _preparing(self, open_names: set[str]) -> list[str]:
        return [name for name in self._processes if name in open_names and name not in self._ready]

    def _start_some(self, open_names: set[str]) -> None:
        while self._waiting and len(self._preparing(open_names)) < self.jobs:
            name = self._waiting.pop(0)
            self._processes[name] = subprocess.Popen(
                [*self.command, name], env=dict(self.environment), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            threading.Thread(target=self._listen, args=(name,), daemon=True).start()

    def _give_up(self, open_names: set[str]) -> set[str]:
        """End those that are not ready: what they do would disturb the times of the others."""
        late = {*self._waiting, *self._preparing(open_names)}
        self._waiting = []
        for name in late:
            self.troubles[name] = f"not ready after {self.prepare:.0f} s"
            if name in self._processes:
                self._processes[name].kill()
                self._processes[name].wait()
        return late

    def _listen(self, name: str) -> None:
        for line in self._processes[name].stdout or ():
            self._told.put((name, line.rstrip()))
        self._told.put((name, "ended"))

    def _time_one(self, open_names: set[str]) -> None:
        waits = [name for name in self._ready if name in open_names and self._processes[name].stdin]
        if self._timing or not waits or self._waiting or self._preparing(open_names):
            return
        self._timing = waits[0]
        process = self._processes[self._timing]
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
        process.stdin = None

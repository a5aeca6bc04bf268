"""A run on a disk that becomes full: it fails and says so, and what it had kept is there to go on from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, resource, sys
from pathlib import Path

from chimeralab import RunSpec
from chimeralab.events import Checkpoint
from chimeralab.runs.sink import Listing
from chimeralab.scheduling.worker import RunWorker
from chimeralab.stack.compose import compose

home, mounted = Path(sys.argv[1]), sys.argv[2] == "mounted"
ballast = home / "ballast"


def fill():
    if not mounted:
        return resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def empty():
    ballast.unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Filling(Listing):
    def emit(self, event):
        if isinstance(event, Checkpoint) and event.role == "newest":
            named.update({"newest": event.path})
            fill()
        return super().emit(event)


named = {}
worker = RunWorker.__new__(RunWorker)  # without its threads
worker.home, worker.name = home, "test"
task = {"name": "mqar", "options": {"vocab_size": 32, "sequence_length": 16, "pairs": 1}}
train = {"steps": 6, "batch_size": 2, "eval_batches": 1, "sample_tokens": 0, "checkpoint_every": 2, "eval_every": 6}
train["log_every"] = 1
stack = compose("attention[heads=2]", d_model=32)
fields = {"stack": stack, "task": task, "train": train, "profile": {"contexts": []}}
spec = RunSpec.model_validate(fields).model_dump(mode="json")
status, reason, _ = worker._execute(1, 1, spec, {}, Filling())
left = sorted(path.name for path in Path(named["newest"]).parent.iterdir())
empty()
again = Listing()
after, _, _ = worker._execute(1, 2, spec, named, again)
first = next(event.step for event in again.events if event.kind == "metrics")
print(json.dumps({"status": status, "reason": reason, "left": left, "after": after, "first": first}))
"""
MOUNT = 'mount -t tmpfs -o size=16m none "$1" && exec "$2" -c "$3" "$1" mounted'


def run_where_the_disk_fills_up(home: Path) -> dict:
    """In a small file system of its own, where this user may mount one; elsewhere files may grow no further."""
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounts = subprocess.run([*own, 'mount -t tmpfs none "$0"', home], capture_output=True, check=False).returncode == 0
    command = (
        [*own, MOUNT, "sh", home, sys.executable, PROGRAM] if mounts else [sys.executable, "-c", PROGRAM, home, ""]
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_on_a_full_disk_fails_and_goes_on_from_its_checkpoint_when_there_is_room(tmp_path: Path) -> None:
    told = run_where_the_disk_fills_up(tmp_path)
    assert told["status"] == "failed"
    assert "step-00000004: cannot be written: " in told["reason"]
    assert "No space left on device" in told["reason"] or "File too large" in told["reason"]
    assert "Make room" in told["reason"]
    assert told["left"] == ["step-00000002"]  # and nothing half written, which would take the room of others
    assert (told["after"], told["first"]) == ("completed", 3)

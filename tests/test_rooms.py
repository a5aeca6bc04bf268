"""Who may know whom: the contracts of `.importlinter`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"


def test_every_room_imports_only_what_it_may_know() -> None:
    command = [sys.executable, "-c", LINT, "--config", ".importlinter", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_the_architecture_names_every_room() -> None:
    rooms = {init.parent.name for init in (ROOT / "platform" / "chimeralab").glob("*/__init__.py")}
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert not {room for room in rooms if f"`{room}/`" not in page}

"""First-party studies: the YAML files of this folder."""

from __future__ import annotations

from pathlib import Path

from chimeralab import hookimpl


@hookimpl
def register_studies() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.yaml"))

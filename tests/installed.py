"""Packages as pip leaves them: a module on the path, and a `dist-info` with its entry points."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path


def install_metadata(package: Path) -> dict[str, str]:
    """Give the package in a folder (with pyproject.toml) its metadata; returns an environment that sees it."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    lines = [f"{key} = {value}" for key, value in project["entry-points"]["chimeralab"].items()]
    metadata = package / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    described = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(described)
    (metadata / "entry_points.txt").write_text("[chimeralab]\n" + "\n".join(lines) + "\n")
    return {**os.environ, "PYTHONPATH": str(package)}

"""`python tests/entry_points.py FOLDER`: with FOLDER on its path a Python into which the lab is not installed finds its
plugins and kernels as if it were."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
folder = Path(sys.argv[1]) / f"{project['name']}-{project['version']}.dist-info"
folder.mkdir(parents=True, exist_ok=True)
about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
(folder / "METADATA").write_text(about, encoding="utf-8")
groups = project["entry-points"].items()
listed = (f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in found.items()) for group, found in groups)
(folder / "entry_points.txt").write_text("\n".join(listed), encoding="utf-8")

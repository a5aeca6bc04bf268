"""What is installed brings what it imports, and its licence."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = ("platform", "plugins", "kernels", "webui")


def plain(name: str) -> str:
    return re.match(r"[\w.-]+", name)[0].lower().replace("_", "-")  # type: ignore[index]


def imported() -> dict[str, Path]:
    """Modules of others that the code imports, each with a file that does."""
    found: dict[str, Path] = {}
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.partition(".")[0]: file for name in names}
    ours = {name for name in found if name.startswith("chimeralab")}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names | ours}


def test_every_package_that_the_code_imports_is_declared() -> None:
    extras = [name for names in PROJECT["optional-dependencies"].values() for name in names]
    declared = {plain(name) for name in [*PROJECT["dependencies"], *extras]}
    distributions, missing = packages_distributions(), {}
    for module, file in imported().items():
        if not declared & {plain(name) for name in distributions.get(module, [module])}:
            missing[module] = str(file.relative_to(ROOT))
    assert not missing


def test_the_licence_that_is_named_is_there() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert re.search(r"Apache License\s+Version 2.0, January 2004", text)
    assert "[yyyy]" not in text

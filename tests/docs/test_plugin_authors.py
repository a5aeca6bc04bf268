"""docs/plugin-authors.md: its code runs, in the order of the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from chimeralab import authoring, plugins

PAGE = (Path(__file__).parents[2] / "docs" / "plugin-authors.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_of_the_page_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("rotor")
    own = plugins.Registry()
    monkeypatch.setattr(plugins, "registry", lambda: own)
    monkeypatch.setattr("chimeralab.stack.resolve.registry", lambda: own)
    registered = False
    for code in blocks("python"):
        exec(compile(code, "plugin-authors.md", "exec"), module.__dict__)
        if hasattr(module, "register_mixers") and not registered:
            own.register(SimpleNamespace(register_mixers=module.register_mixers), "rotor")
            registered = True
    assert own.mixers["rotor"] is module.Rotor


def test_the_commands_of_the_page_are_those_of_the_kit(tmp_path: Path) -> None:
    (commands,) = blocks("sh")
    assert commands.splitlines()[0] == "chimeralab plugin new rotor --kind mixer"
    package = authoring.new_plugin("rotor", "mixer", tmp_path)
    (shown,) = blocks("toml")
    entry = tomllib.loads(shown)["project"]["entry-points"]
    assert tomllib.loads((package / "pyproject.toml").read_text())["project"]["entry-points"] == entry

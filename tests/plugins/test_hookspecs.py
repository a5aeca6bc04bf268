"""Every hook is documented where plugin authors look: in its docstring and in the table of docs/concepts.md."""

from __future__ import annotations

from pathlib import Path

import pluggy
import pytest

from chimeralab import hookspecs

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts.md"


def hooks() -> list[str]:
    manager = pluggy.PluginManager("chimeralab")
    manager.add_hookspecs(hookspecs)
    return sorted(name for name in vars(manager.hook) if not name.startswith("_"))


def test_there_are_hooks() -> None:
    assert {"register_mixers", "run_finished"} <= set(hooks())


@pytest.mark.parametrize("hook", hooks())
def test_a_hook_says_what_it_is_for(hook: str) -> None:
    assert getattr(hookspecs, hook).__doc__


@pytest.mark.parametrize("hook", hooks())
def test_a_hook_stands_in_the_table_of_hooks(hook: str) -> None:
    assert f"`{hook}`" in CONCEPTS.read_text()

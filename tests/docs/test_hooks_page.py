"""docs/hooks.md is what the hooks' specifications say."""

from __future__ import annotations

from pathlib import Path

from chimeralab.authoring.hooks import hooks, reference

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "write it anew: chimeralab plugin hooks > docs/hooks.md"


def test_no_hook_is_missing_or_undocumented() -> None:
    assert len(hooks()) >= 9
    for name, hook in hooks().items():
        assert f"## `{name}`" in PAGE.read_text()
        assert hook.__doc__, name

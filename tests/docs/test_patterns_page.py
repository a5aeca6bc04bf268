"""Every form on the page about patterns is read, built and written back; every import gives what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chimeralab import parse
from chimeralab.stack import to_text
from chimeralab.stack.compose import compose
from chimeralab.stack.dialects import read_source

PAGE = (Path(__file__).parents[2] / "docs" / "patterns.md").read_text()
PATTERNS, IMPORTS = PAGE.split("## Patterns of other libraries")
FORMS = re.findall(r"^\| `([^`]+)` \|", PATTERNS, re.MULTILINE)
READ_AS = re.findall(r"^\| `([\w-]+:[^`]+)` \| `([^`]+)` \|$", IMPORTS, re.MULTILINE)
COMMANDS = re.findall(r"`chimeralab stack ([a-z0-9-]+)", PATTERNS)


def test_the_page_has_forms_and_imports() -> None:
    assert len(FORMS) >= 15
    assert len(READ_AS) >= 4
    assert len(COMMANDS) >= 2


@pytest.mark.parametrize("form", FORMS)
def test_a_form_can_be_built_and_written_back(form: str) -> None:
    stack = compose(form, d_model=256)
    assert parse(to_text(stack.layers)) == stack.layers


@pytest.mark.parametrize(("source", "text"), READ_AS)
def test_an_import_gives_what_the_page_says(source: str, text: str) -> None:
    assert read_source(source).layers == parse(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_preset_on_the_page_exists(name: str) -> None:
    assert compose(name).layers

"""The reference of the hooks, written from their specifications."""

from __future__ import annotations

import inspect
from typing import Any

from chimeralab import hookspecs

INTRODUCTION = f"""# Hooks

A plugin is a module (or object) behind an entry point of the group `chimeralab`. It implements any of these with
`@chimeralab.hookimpl` and may leave out arguments that it has no use for. The API's version is {hookspecs.API_VERSION}.

This page is written by `chimeralab plugin hooks`.
"""


def reference() -> str:
    """Markdown: each hook with its signature and its docstring, in the order of `hookspecs.py`."""
    return INTRODUCTION + "".join(_entry(name, hook) for name, hook in hooks().items())


def hooks() -> dict[str, Any]:
    """Every hook by name."""
    return {name: found for name, found in vars(hookspecs).items() if hasattr(found, "chimeralab_spec")}


def _entry(name: str, hook: Any) -> str:
    signature = str(inspect.signature(hook)).replace("'", "")  # annotations are text there
    return f"\n## `{name}`\n\n```python\ndef {name}{signature}\n```\n\n{inspect.getdoc(hook)}\n"

"""`chimeralab plugin new`: a complete package to start a plugin from, with tests that pass as written."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal, get_args

import chimeralab
from chimeralab.errors import SpecError
from chimeralab.hookspecs import API_VERSION
from chimeralab.plugins import registry

Kind = Literal["mixer", "feed_forward", "task", "kernel", "page"]
KINDS: tuple[str, ...] = get_args(Kind)
SUBJECT = {  # what a plugin of each kind gives, for its README
    "mixer": "a mixer, a layer that moves information along the sequence",
    "feed_forward": "a feed-forward, a layer that works on each token by itself",
    "task": "a task, data with a loss and metrics",
    "kernel": "a kernel, an implementation of one op",
    "page": "a page of the dashboard",
}


def new_plugin(name: str, kind: str, folder: Path) -> Path:
    """Write the package `folder/name` and return its path.

    Raises:
        SpecError: a name that is taken or cannot be a module's, an unknown kind, a folder that exists.
    """
    if kind not in KINDS:
        raise SpecError(f"unknown kind {kind!r}", place="--kind", remedy=f"Known: {', '.join(KINDS)}")
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise SpecError(
            f"{name!r} cannot be a module's name", place="NAME", remedy="Use a-z, 0-9 and '-', as in my-mixer"
        )
    taken = {"mixer": registry().mixers, "feed_forward": registry().feed_forwards, "task": registry().tasks}
    if module in taken.get(kind, {}):
        raise SpecError(
            f"{kind.replace('_', '-')} {module!r} is already installed", place="NAME", remedy="Choose another"
        )
    target = folder / name
    if target.exists():
        raise SpecError("exists already", place=str(target), remedy="Choose another name or folder")
    words = {
        "name": name,
        "module": module,
        "class_name": "".join(part.capitalize() for part in module.split("_")),
        "title": module.replace("_", " ").capitalize(),
        "subject": SUBJECT[kind],
        "api": str(API_VERSION),
        "version": chimeralab.__version__,
    }
    templates = files(__package__) / "templates"
    written = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".github/workflows/test.yml": "test.yml",
        ".gitignore": "gitignore",
        f"{module}.py": f"{kind}.py",
        f"tests/test_{module}.py": f"test_{kind}.py",
    }
    for path, template in written.items():
        text = Template((templates / f"{template}.txt").read_text()).substitute(words)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text)
    return target

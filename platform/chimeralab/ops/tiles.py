"""Tiles of kernels, by architecture and shape class: measured by `chimeralab kernels tune`, kept in a file.

A kernel asks `chosen` before a launch. Without an entry it takes its own values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from chimeralab.contracts.tuning import Tuning
from chimeralab.errors import SpecError, did_you_mean
from chimeralab.ops.table import all_kernels

Values = dict[str, int]
Entries = dict[str, dict[str, Values]]  # by the tuning's name, then by shape class
ROOMY = ("cpu", "sm90", "sm100", "sm103")
"""Where a kernel's own values fit: a program has 227 KiB of shared memory there, 99 or 163 on other GPUs."""


class _File(BaseModel):
    """The shape of a file of tiles. What the values are is checked against the kernels, which may be others' by now."""

    architectures: dict[str, dict[str, dict[str, dict[str, Any]]]]


FILE = "kernel_tiles.json"
"""Where a lab's cache keeps them; a run takes them from there."""

_entries: Entries = {}
_trial: Mapping[tuple[str, str], Mapping[str, int]] = {}
_asked: list[tuple[str, str]] | None = None


def chosen(tuning: Tuning, shape: str) -> Mapping[str, int]:
    """What to take on this machine for a shape class, such as "128 × 128 bfloat16", in place of a kernel's own."""
    if _asked is not None and (tuning.name, shape) not in _asked:
        _asked.append((tuning.name, shape))
    tried = _trial.get((tuning.name, shape))
    if tried is not None:
        return tried
    found = _entries.get(tuning.name, {}).get(shape)
    if found is not None:
        return found
    return {} if architecture() in ROOMY else tuning.small


@lru_cache
def architecture() -> str:
    """Of the GPU in use, as "sm90"; "cpu" without one, where kernels are interpreted."""
    if not torch.cuda.is_available():
        return "cpu"
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


@contextmanager
def trying(values: Mapping[tuple[str, str], Mapping[str, int]]) -> Iterator[None]:
    """Within the block tunings take these values, given by name and shape class."""
    global _trial
    before, _trial = _trial, values
    try:
        yield
    finally:
        _trial = before


@contextmanager
def asked() -> Iterator[list[tuple[str, str]]]:
    """Within the block the names and shape classes that kernels ask for are noted."""
    global _asked
    before, _asked = _asked, []
    try:
        yield _asked
    finally:
        _asked = before


def tunings() -> dict[str, Tuning]:
    """What the registered kernels leave open, by name."""
    return {tuning.name: tuning for kernel in all_kernels() for tuning in kernel.tunings}


def read(path: Path) -> dict[str, Entries]:
    """Entries by architecture.

    Raises:
        SpecError: the file is missing, is not such a file, or names what no kernel leaves open.
    """
    found = _parsed(path)
    known = tunings()
    for by_name in found.values():
        for name, by_shape in by_name.items():
            _check(name, by_shape, known, str(path))
    return found


def _parsed(path: Path) -> dict[str, Entries]:
    try:
        return _File.model_validate_json(path.read_bytes()).architectures
    except OSError as error:
        reason = str(error.strerror)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        if first["loc"]:
            reason = f"{'.'.join(map(str, first['loc']))}: {reason}"
    remedy = "Write one by `chimeralab kernels tune --to FILE`"
    raise SpecError(f"no file of tiles: {reason}", place=str(path), remedy=remedy)


def _check(name: str, by_shape: Mapping[str, Values], known: Mapping[str, Tuning], place: str) -> None:
    if name not in known:
        raise SpecError(f"no kernel has tiles {name!r}", place=place, remedy=did_you_mean(name, known))
    fields = {key for choice in known[name].choices for key in choice}
    for field, value in ((field, value) for values in by_shape.values() for field, value in values.items()):
        if field not in fields:
            raise SpecError(f"{name} has no {field!r}", place=place, remedy=did_you_mean(field, fields))
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
            raise SpecError(f"{name}: {field} is {value!r}", place=place, remedy="Take a number from 1 to 4096")


def load(path: Path) -> list[str]:
    """Take the entries of this machine's architecture from now on, if there is such a file.

    What does not fit the kernels that are installed now is passed over, since a run can do without; returns why.
    """
    _entries.clear()
    if not path.exists():
        return []
    try:
        found = _parsed(path).get(architecture(), {})
    except SpecError as error:
        return [str(error)]
    known, refused = tunings(), []
    for name, by_shape in found.items():
        try:
            _check(name, by_shape, known, str(path))
            _entries[name] = by_shape
        except SpecError as error:
            refused.append(str(error))
    return refused


def add(path: Path, found: Mapping[str, Entries]) -> None:
    """Join entries by architecture to those of a file; newer ones replace older ones."""
    joined = _parsed(path) if path.exists() else {}
    for machine, by_name in found.items():
        for name, by_shape in by_name.items():
            joined.setdefault(machine, {}).setdefault(name, {}).update(by_shape)
    written = path.with_suffix(".new")
    written.write_text(json.dumps({"architectures": joined}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    written.replace(path)

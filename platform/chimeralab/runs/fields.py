"""A run written as plain fields, as in a YAML file: `stack` is a pattern and settings, the rest is RunSpec's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chimeralab.errors import SpecError
from chimeralab.runs.spec import RunSpec
from chimeralab.stack.spec import StackSpec


def read_run(fields: Mapping[str, Any]) -> RunSpec:
    """The run that `fields` describe. See `read_stack_fields` for its stack.

    Raises:
        PatternError: the pattern cannot be read. SpecError: a field is unknown or has a wrong value.
    """
    rest = {name: value for name, value in fields.items() if name != "stack"}
    return with_stack(read_stack_fields(fields), rest)


def read_stack_fields(fields: Mapping[str, Any]) -> StackSpec:
    """`stack: {pattern: ..., d_model: ...}`, a stack as it is saved (`layers`), or that of the weights to start from.

    Raises:
        PatternError, SpecError
    """
    from chimeralab.stack.compose import compose
    from chimeralab.stack.resolve import invalid, resolve

    stack, start = fields.get("stack") or {}, fields.get("start")
    if not isinstance(stack, Mapping):
        raise SpecError(
            f"expected fields, not {stack!r}", place="stack", remedy="Write stack: {pattern: ..., d_model: ...}"
        )
    settings = dict(stack)
    if "pattern" in settings:
        return compose(str(settings.pop("pattern")), **settings)
    if "layers" in settings:
        try:
            made = StackSpec.model_validate(settings)
        except ValidationError as error:
            raise invalid(error, StackSpec, "stack") from None
        resolve(made)
        return made
    if isinstance(start, Mapping) and "folder" in start:
        from chimeralab.stack.weights import read_stack

        if settings:
            raise SpecError("the stack is that of the weights", place=f"stack.{min(settings)}", remedy="Leave it out")
        return read_stack(Path(start["folder"]))
    raise SpecError("it has no pattern", place="stack", remedy='Write stack: {pattern: "attention x2"}, or a preset')


def set_field(fields: dict[str, Any], path: str, value: Any, place: str) -> None:
    """Set a dotted field, such as `train.lr`, in nested ones. Raises SpecError: it leads through a value."""
    *parents, last = path.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
        if not isinstance(fields, dict):
            raise SpecError(f"{parent!r} of {path} has no fields of its own", place=place)
    fields[last] = value


def with_stack(stack: StackSpec, fields: Mapping[str, Any]) -> RunSpec:
    """Raises SpecError, which names the field."""
    from chimeralab.stack.resolve import invalid

    try:
        return RunSpec.model_validate({**fields, "stack": stack})
    except ValidationError as error:
        raise invalid(error, RunSpec, "run") from None

"""Text, or the name of a preset → a checked stack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from chimeralab.errors import SpecError, did_you_mean
from chimeralab.plugins import registry
from chimeralab.stack.pattern import parse
from chimeralab.stack.resolve import invalid, resolve
from chimeralab.stack.spec import LayerSpec, StackSpec

HYPHENATED = re.compile(r"[A-Za-z]\w*(-[\w.]+)+")  # only a preset is called so: a pattern has no hyphens


def compose(text: str, /, **settings: Any) -> StackSpec:
    """`settings` are StackSpec's: d_model, norm_eps, residual and so on; they win over a preset's own.

    Raises:
        PatternError: the text cannot be read. SpecError: no such preset; a layer or a setting cannot be built.
    """
    presets, name = registry().presets, text.strip()
    if name in presets:
        text, settings = presets[name].pattern, {**presets[name].settings, **settings}
    elif HYPHENATED.fullmatch(name):
        raise SpecError(f"unknown preset {name!r}", place="stack", remedy=did_you_mean(name, presets))
    stack = with_settings(parse(text), settings, "stack")
    resolve(stack)
    return stack


def with_settings(layers: Sequence[LayerSpec], settings: Mapping[str, Any], place: str) -> StackSpec:
    """The stack of layers that were read.

    Raises:
        SpecError: a setting is unknown or out of bounds, or is the layers, which come from the pattern alone.
    """
    if "layers" in settings:
        raise SpecError("the layers are those of the pattern", place=f"{place}.layers", remedy="Leave them out")
    try:
        return StackSpec(layers=tuple(layers), **settings)
    except ValidationError as error:
        raise invalid(error, StackSpec, place) from None

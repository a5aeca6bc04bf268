"""A draft: the stack as the editor in the browser holds it. The server reads it; what it says goes back as a reply."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from chimeralab import LabError, LayerSpec, SpecError, StackSpec, parse
from chimeralab_webui.widgets import complaint

if TYPE_CHECKING:
    from chimeralab import Lab

MAX_TEXT = 50_000
_PLACE = re.compile(r"layer (\d+)(?:: (\w+)(?:\.(\w+))?)?")


class Draft(BaseModel):
    """The last edit: of the layers, or of the text."""

    rev: int = 0
    layers: list[dict[str, Any]] | None = None
    text: str | None = None
    settings: dict[str, Any] = {}

    def stack(self) -> StackSpec:
        """The stack that this means; its options are not checked yet.

        Raises:
            LabError, pydantic.ValidationError
        """
        if self.layers is None:
            if len(self.text or "") > MAX_TEXT:
                raise SpecError(f"the pattern is longer than {MAX_TEXT} characters", remedy="Repeat a group: (…) x8")
            return StackSpec(layers=parse(self.text or ""), **self.settings)
        if not self.layers:
            raise SpecError("the stack has no layers", remedy="Click a mixer, or write a pattern")
        layers = tuple(_layer(number, written) for number, written in enumerate(self.layers))
        return StackSpec(layers=layers, **self.settings)


def read(lab: Lab, value: Any) -> tuple[StackSpec | None, dict[str, Any]]:
    """The stack of an editor's value, None where it cannot be built, and the reply that says why."""
    draft = Draft.model_validate(value)
    stack, error = None, None
    try:
        stack = draft.stack()
        lab.check(stack)
    except (LabError, ValidationError) as raised:
        error = _located(complaint(raised))
    text = "" if draft.layers == [] else draft.text
    reply: dict[str, Any] = {"rev": draft.rev, "layers": None, "text": text, "error": error, "query": None}
    if stack is not None:
        reply |= {
            "layers": [layer.model_dump() for layer in stack.layers],
            "text": stack.text,
            "query": query(stack),
        }
    return (None if error else stack), reply


def opened(stack: StackSpec, rev: int = 0) -> dict[str, Any]:
    """An editor's value that shows `stack`."""
    settings = stack.model_dump(exclude={"layers"}, exclude_defaults=True)
    return {
        "rev": rev,
        "layers": [layer.model_dump() for layer in stack.layers],
        "text": stack.text,
        "settings": settings,
    }


def query(stack: StackSpec) -> dict[str, str | None]:
    """The stack as query parameters; a setting at its default is None and leaves the address."""
    settings = stack.model_dump(mode="json", exclude={"layers"})
    defaults = {name: field.default for name, field in StackSpec.model_fields.items()}
    return {"pattern": stack.text} | {
        name: None if value == defaults[name] else str(value).lower() for name, value in settings.items()
    }


def _layer(number: int, written: dict[str, Any]) -> LayerSpec:
    """A layer as the browser wrote it: its label and the rank of its adapter were typed."""
    try:
        return LayerSpec.model_validate(written)
    except ValidationError as error:
        wrong = complaint(error)
        place = ": ".join(part for part in (f"layer {number}", wrong["place"]) if part)
        raise SpecError(wrong["reason"], place=place) from None


def _located(error: dict[str, Any]) -> dict[str, Any]:
    """Adds what part of the editor an error is about: a layer with part and field, or a setting of the stack."""
    found = _PLACE.match(error["place"])
    layer, part, field = found.groups() if found else (None, None, None)
    setting = error["place"] if error["place"] in StackSpec.model_fields else None
    return error | {
        "layer": int(layer) if layer is not None else None,
        "part": part,
        "field": field,
        "setting": setting,
    }

"""What an import gives, and how its options are fitted to the mixers that are installed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from chimeralab.plugins import registry
from chimeralab.stack.compose import with_settings
from chimeralab.stack.spec import LayerSpec, StackSpec
from chimeralab.stack.text import to_text


@dataclass(frozen=True)
class Imported:
    """Layers as another library would build them; nothing is checked against what is installed yet."""

    layers: tuple[LayerSpec, ...]
    settings: dict[str, Any] = field(default_factory=dict)  # StackSpec's, where the source says them
    notes: tuple[str, ...] = ()  # what the lab does otherwise than the source

    @property
    def text(self) -> str:
        """The layers in the pattern language."""
        return to_text(self.layers)

    def stack(self, /, **settings: Any) -> StackSpec:
        """The stack; `settings` win over the source's own.

        Raises:
            SpecError: a setting cannot be.
        """
        return with_settings(self.layers, {**self.settings, **settings}, "import")


def fitted(imported: Imported) -> Imported:
    """Leaves out options that say a default, and, with a note, those that an installed part does not have."""
    known = registry()
    missing: dict[str, None] = {}

    def fit(kind: dict[str, Any], name: str, options: dict[str, Any]) -> dict[str, Any]:
        if name not in kind:
            return options
        fields = kind[name].Config.model_fields
        for option in options.keys() - fields.keys():
            missing[f"{name} has no option {option!r}: it is left out"] = None
        kept = {k: v for k, v in options.items() if k in fields and fields[k].default != v}
        if "branches" in kept:
            kept["branches"] = [
                {**branch, "options": fit(known.mixers, branch["mixer"], branch["options"])}
                for branch in kept["branches"]
            ]
        return kept

    layers = tuple(
        layer.model_copy(
            update={
                "options": fit(known.mixers, layer.mixer, layer.options),
                "ffn_options": fit(known.feed_forwards, layer.ffn, layer.ffn_options),
            }
        )
        for layer in imported.layers
    )
    return replace(imported, layers=layers, notes=(*imported.notes, *sorted(missing)))

"""What a lab composes: the parts that are installed, stacks from text or another library, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from chimeralab.stack import StackSpec, parse, to_text

if TYPE_CHECKING:
    from chimeralab.contracts import Preset
    from chimeralab.stack.cost import CostReport
    from chimeralab.stack.dialects import Imported


@dataclass(frozen=True)
class PaletteEntry:
    """A mixer or feed-forward that can be put into a stack; `schema` is the JSON schema of its options."""

    kind: Literal["mixer", "feed_forward"]
    name: str
    title: str
    family: str
    summary: str
    color: str
    source: str
    package: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class TaskEntry:
    """A task that a run can train on."""

    name: str
    title: str
    summary: str
    metric: str
    higher_is_better: bool
    schema: dict[str, Any]


class Composing:
    """Stacks before anything runs; it needs neither a home nor a store. `Lab` is one."""

    def palette(self) -> list[PaletteEntry]:
        """Every installed mixer and feed-forward."""
        from chimeralab.plugins import registry

        known = registry()
        return [
            PaletteEntry(
                kind,  # type: ignore[arg-type]
                cls.name,
                cls.title or cls.name,
                cls.family or "Other",
                cls.summary,
                cls.color or _color(cls.name),
                cls.source,
                known.owner(label, cls.name).package,
                cls.Config.model_json_schema(),
            )
            for kind, label, found in (
                ("mixer", "mixer", known.mixers),
                ("feed_forward", "feed-forward", known.feed_forwards),
            )
            for cls in found.values()
        ]

    def presets(self) -> list[Preset]:
        """Every preset whose parts are installed. Its `sizes` are presets too, by their own names."""
        from chimeralab.plugins import registry
        from chimeralab.stack.branch import mixers_of

        known = registry()
        return [
            preset
            for preset in known.presets.values()
            if not preset.size_of
            and all(
                known.mixers.keys() >= {*mixers_of(layer)} and layer.ffn in known.feed_forwards
                for layer in parse(preset.pattern)
            )
        ]

    def tasks(self) -> list[TaskEntry]:
        from chimeralab.plugins import registry

        return [
            TaskEntry(
                cls.name,
                cls.title or cls.name,
                cls.summary,
                cls.metric,
                cls.higher_is_better,
                cls.Config.model_json_schema(),
            )
            for cls in registry().tasks.values()
        ]

    def compose(self, text: str, /, **settings: Any) -> StackSpec:
        """Text (or a preset's name) → a checked stack. `settings`: those of `StackSpec`.

        Raises:
            PatternError: the text cannot be read. SpecError: a layer cannot be built.
        """
        from chimeralab.stack.compose import compose

        return compose(text, **settings)

    def import_stack(self, source: str) -> Imported:
        """Another library's pattern, expanded: `megatron:M-M*-`, `hf:path/to/config.json`, `fla:`, `olmo:`,
        `striped-hyena:`, `h-net:`. Look at its `text` and `notes`, then take its `stack()`.

        Raises:
            PatternError, SpecError: the source cannot be read. Whether its mixers are installed is `check`'s to say.
        """
        from chimeralab.stack.dialects import read_source

        return read_source(source)

    def import_text(self, dialect: str, text: str) -> Imported:
        """`import_stack` of what a stranger wrote: `text` is a pattern or JSON, and no file is opened.

        Raises:
            PatternError, SpecError: the dialect is unknown, or the text cannot be read.
        """
        from chimeralab.stack.dialects import read_text

        return read_text(dialect, text)

    def check(self, stack: StackSpec) -> None:
        """Raises SpecError where a layer does not exist or cannot be built as asked."""
        from chimeralab.stack.resolve import resolve

        resolve(stack)

    def text(self, stack: StackSpec) -> str:
        return to_text(stack.layers)

    def cost(
        self,
        stack: StackSpec,
        *,
        vocab_size: int = 256,
        batch_size: int | None = None,
        sequence_length: int = 256,
        contexts: Sequence[int] | None = None,
        precision: str = "float32",
    ) -> CostReport:
        """What the stack costs; nothing is built. See `chimeralab.stack.cost.cost`."""
        from chimeralab.stack.cost import cost

        return cost(
            stack,
            vocab_size=vocab_size,
            batch_size=batch_size,
            sequence_length=sequence_length,
            contexts=contexts,
            precision=precision,
        )


def _color(name: str) -> str:
    """A steady colour for a layer that chose none."""
    import colorsys
    import zlib

    hue = zlib.crc32(name.encode()) % 360 / 360
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.5, 0.55))
    return f"#{red:02x}{green:02x}{blue:02x}"

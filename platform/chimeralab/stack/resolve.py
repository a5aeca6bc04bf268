"""Names and options → classes and checked configs; every error names the layer and the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from chimeralab.contracts import Cost, FeedForward, LayerConfig, Mixer
from chimeralab.errors import LabError, SpecError, did_you_mean
from chimeralab.plugins import registry
from chimeralab.stack.spec import LayerSpec, StackSpec


@dataclass(frozen=True)
class ResolvedLayer:
    """A layer whose parts are known and whose options were checked."""

    mixer: type[Mixer]
    config: LayerConfig
    ffn: type[FeedForward]
    ffn_config: LayerConfig
    share: str | None = None  # layers with one label share their weights
    lora: int = 0  # rank of this use's adapters

    @property
    def causal(self) -> bool:
        return self.mixer.causal or self.mixer.null

    def mixer_cost(self, d_model: int) -> Cost:
        return Cost() if self.mixer.null else self.mixer.cost(self.config, d_model)

    def ffn_cost(self, d_model: int) -> Cost:
        return Cost() if self.ffn.null else self.ffn.cost(self.ffn_config, d_model)


def resolve(stack: StackSpec) -> list[ResolvedLayer]:
    """Look up and check every layer.

    Raises:
        SpecError: an unknown name, an unknown or impossible option; `place` is "layer 3: attention.heads".
            Two layers share a label and nothing else.
    """
    seen: dict[str, ResolvedLayer] = {}
    first_uses: dict[str, int] = {}
    resolved = []
    for index, layer in enumerate(stack.layers):
        if layer.share is not None:
            first = first_uses.setdefault(layer.share, index)
            _check_same(stack.layers[first], layer, first, index)
        key = layer.model_dump_json()
        if key not in seen:
            seen[key] = _resolve(layer, stack.d_model, f"layer {index}")
        resolved.append(seen[key])
    return resolved


def _resolve(layer: LayerSpec, d_model: int, place: str) -> ResolvedLayer:
    mixer = registry().mixer(layer.mixer, place)
    ffn = registry().feed_forward(layer.ffn, place)
    return ResolvedLayer(
        mixer,
        checked_config(mixer, layer.options, d_model, place),
        ffn,
        checked_config(ffn, layer.ffn_options, d_model, place),
        layer.share,
        layer.lora,
    )


def _check_same(first: LayerSpec, layer: LayerSpec, at: int, index: int) -> None:
    unlike = [
        name for name in ("mixer", "options", "ffn", "ffn_options") if getattr(first, name) != getattr(layer, name)
    ]
    if unlike:
        here, there = (getattr(spec, unlike[0]) for spec in (layer, first))
        raise SpecError(
            f"the layer shared as {layer.share!r} has {unlike[0].replace('_', ' ')} {here!r} here"
            f" and {there!r} at layer {at}",
            place=f"layer {index}",
            remedy="Write it alike at each depth, or choose another label",
        )


def checked_config(cls: Any, options: dict[str, Any], d_model: int, place: str) -> LayerConfig:
    """The config of a mixer or feed-forward, checked against the width. Raises SpecError, with the field."""
    try:
        config = cls.Config(**options)
    except ValidationError as error:
        raise invalid(error, cls.Config, f"{place}: {cls.name}") from None
    try:
        config.check(d_model)
    except LabError as error:
        where = error.place.removeprefix(f"mixer {cls.name}").removeprefix(f"feed-forward {cls.name}")
        raise SpecError(error.reason, place=f"{place}: {cls.name}{where}", remedy=error.remedy) from None
    return config


def invalid(error: ValidationError, model: Any, place: str) -> SpecError:
    """The first complaint of a pydantic check, in our words."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *parents, name = map(str, first["loc"])
        for parent in parents:
            model = model.model_fields[parent].annotation if parent in getattr(model, "model_fields", {}) else None
        known = did_you_mean(name, getattr(model, "model_fields", ()))
        return SpecError(f"unknown option {name!r}", place=".".join([place, *parents]), remedy=known)
    reason = first["msg"][0].lower() + first["msg"][1:]
    if first["type"] != "missing":
        reason += f", not {first['input']!r}"
    return SpecError(reason, place=f"{place}.{field}" if field else place)

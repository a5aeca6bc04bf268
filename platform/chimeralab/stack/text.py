"""The way back: an expanded list of layers → short text that means exactly that list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chimeralab.stack.pattern import _WORDS, DEFAULT_FFN
from chimeralab.stack.spec import LABEL, LayerSpec


def to_text(layers: Sequence[LayerSpec]) -> str:
    """`parse(to_text(layers)) == layers`, for any list."""
    mixers = [_unit(layer.mixer, layer.options) + _sharing(layer) for layer in layers]
    ffns = [_unit(layer.ffn, layer.ffn_options) for layer in layers]
    text = _compress(mixers)
    period = next(p for p in range(1, len(ffns) + 1) if len(ffns) % p == 0 and ffns[:p] * (len(ffns) // p) == ffns)
    if ffns[:period] == [DEFAULT_FFN]:
        return text
    axis = _compress(ffns[:period])
    return f"{text}, ffn={axis}" if period == 1 else f"{text}, ffn=({axis})"


def _unit(name: str, options: dict[str, Any]) -> str:
    if not options:
        return name
    branches = options.get("branches")
    if isinstance(branches, list | tuple) and branches and all(map(_is_branch, branches)):
        settings = [f"{key}={_value(value)}" for key, value in options.items() if key != "branches"]
        return f"{name}({', '.join([*map(_branch, branches), *settings])})"
    return f"{name}[{', '.join(f'{key}={_value(value)}' for key, value in options.items())}]"


def _is_branch(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("mixer"), str)


def _branch(branch: dict[str, Any]) -> str:
    text = _unit(branch["mixer"], branch.get("options") or {})
    return f"{text}:{branch['heads']}" if branch.get("heads") is not None else text


def _sharing(layer: LayerSpec) -> str:
    label = f"@{layer.share}" if layer.share is not None else ""
    return f"{label} + lora({layer.lora})" if layer.lora else label


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value)
    return text if LABEL.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)


def _compress(units: list[str]) -> str:
    """Runs and repeated groups, longest cover first; ties go to the shorter group."""
    parts: list[str] = []
    at = 0
    while at < len(units):
        size, times = _best_repeat(units, at)
        body = units[at : at + size]
        if times == 1:
            parts.append(body[0])
        elif size == 1:
            parts.append(f"{body[0]} x{times}")
        else:
            parts.append(f"({_compress(body)}) x{times}")
        at += size * times
    return ", ".join(parts)


def _best_repeat(units: list[str], at: int) -> tuple[int, int]:
    best = (1, 1)
    for size in range(1, (len(units) - at) // 2 + 1):
        group, times = units[at : at + size], 1
        while units[at + size * times : at + size * (times + 1)] == group:
            times += 1
        if times > 1 and size * times > best[0] * best[1]:
            best = (size, times)
    return best

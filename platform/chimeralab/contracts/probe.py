"""What a task asks of a model besides scores of its batches: that it draws pictures, and how good they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from chimeralab.contracts.ends import Told

Predict = Callable[[Tensor, Told | None], Tensor]
"""A model without its state: from inputs and what is told of them to what `Task.measure` is given, in float32. All of
it is on the CPU."""


@dataclass(frozen=True)
class Drawn:
    """Something that a model made, to look at: a text, a picture, or both."""

    prompt: str = ""  # what it was given, or what this is
    text: str = ""
    image: bytes = b""  # a PNG file


@dataclass(frozen=True)
class Probe:
    metrics: dict[str, float] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)

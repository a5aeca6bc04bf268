"""What a run says while it goes: the only thing that travels from a worker to the store.

The trainer emits events, the worker numbers them (`seq`, from 1 within an attempt) and delivers them in order,
the store accepts each number once. Plain data: no torch, no SQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel


class _Event(BaseModel):
    # NaN and ±inf are measurements too: they travel as strings in JSON and come back as floats.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    seq: int = 0
    time: float = Field(default_factory=time.time)  # Unix seconds


class Metrics(_Event):
    """Measured values at one step. `tokens` and `seconds` are cumulative over the run: the other two x axes."""

    kind: Literal["metrics"] = "metrics"
    step: int
    tokens: int
    seconds: float
    values: dict[str, float]


class Progress(_Event):
    """How far the run is; several a second at most, only the newest matters."""

    kind: Literal["progress"] = "progress"
    step: int
    total: int
    seconds: float
    tokens_per_second: float
    phase: str = "train"  # train, evaluate, profile


class Log(_Event):
    kind: Literal["log"] = "log"
    level: Literal["info", "warning", "error"] = "info"
    message: str


class Sample(_Event):
    """Text that the model wrote, continuing `prompt`, or a picture that it drew."""

    kind: Literal["sample"] = "sample"
    step: int
    prompt: str
    text: str
    image: str = ""  # a PNG file in base64


class Checkpoint(_Event):
    """A checkpoint that is complete on disk. `role` is what it is kept for."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    bytes: int
    role: Literal["newest", "best"]
    metrics: dict[str, float] = {}


class Profile(_Event):
    """One measurement of speed or memory. `context` is in tokens; `values` name their units (`decode_ms`)."""

    kind: Literal["profile"] = "profile"
    name: Literal["train", "prefill", "decode"]
    context: int
    batch: int
    values: dict[str, float]


class Environment(_Event):
    """Where and with what the attempt runs: device, versions, plugins, and the kernel taken for each op."""

    kind: Literal["environment"] = "environment"
    values: dict[str, Any]


Event = Annotated[Metrics | Progress | Log | Sample | Checkpoint | Profile | Environment, Field(discriminator="kind")]


class _Batch(RootModel[list[Event]]):
    model_config = ConfigDict(ser_json_inf_nan="strings")  # the outermost model decides, and only that


def dump_events(events: Sequence[Event]) -> bytes:
    """Events as JSON, for the wire."""
    return _Batch(list(events)).model_dump_json().encode()


def load_events(payload: bytes) -> list[Event]:
    """The way back from `dump_events`."""
    return _Batch.model_validate_json(payload).root


Emit = Callable[[Event], None]

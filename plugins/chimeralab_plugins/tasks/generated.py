"""Tasks whose sequences are computed: a finite set walked in epochs, or fresh ones at every step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from chimeralab.contracts import IGNORE, Batch, Task, TaskConfig
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab.metrics import parse_axes
from chimeralab_plugins.tasks import draws

TRAIN = "Sequences in an epoch; empty: every one is new"
VALIDATION = "Sequences to validate on, and as many others to test on"
TEST_LENGTHS = "Lengths to test on besides, in tokens"


class GeneratedConfig(TaskConfig):
    train_examples: int | None = Field(None, ge=1, le=10_000_000, description=TRAIN)
    validation_examples: int = Field(1_280, ge=1, le=1_000_000, description=VALIDATION)
    data_seed: int = Field(0, ge=0, description="Chooses the sequences; the run's seed chooses their order")


class GeneratedTask(Task):
    """A subclass says what sequence n of a stream is, in `sequences`; nothing is stored.

    With `train_examples`, sequence n of a split is a pure function of (`data_seed`, split, n), and training shuffles
    the finite set anew each epoch (by seed and rank). Without, training draws from an endless stream of its own for
    each seed and rank. Validation and test walk their sets in order, whatever the seed and rank.
    """

    Config = GeneratedConfig
    config: GeneratedConfig
    metric = "accuracy"
    higher_is_better = True
    axes: ClassVar[Mapping[str, str]] = {}
    """Axes of the evaluation sets, each with the option that changes along it; the options `test_lengths`,
    `test_pairs` and so on hold the values of the axes `length` and `pairs`."""
    writes_answer: ClassVar[bool] = False
    """Whether the input goes on from the question with the answer's own tokens, each predicted from those before."""

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @abstractmethod
    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        """Inputs and targets, (B, T) int64, of the sequences with these `numbers` (B,) of a stream of draws."""

    def check(self) -> None:
        """Nothing but the fields' own bounds."""

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        """Nothing is stored: a sequence is computed when it is asked for."""

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        """Validation steps start over after `evaluation_steps`; rows past the last sequence count nothing."""
        c, rows = self.config, np.arange(size)
        stream: tuple[object, ...] = (self.name, split, c.data_seed)
        if split != "train":
            numbers = step % self.evaluation_steps(size) * size + rows
        elif c.train_examples is None:
            numbers, stream = step * size + rows, (*stream, seed, rank)
        else:
            epochs, places = np.divmod(step * size + rows, c.train_examples)
            numbers = np.empty(size, np.int64)
            for epoch in np.unique(epochs):
                shuffled = draws.order(draws.key(f"{self.name} order", seed, rank, int(epoch)), c.train_examples)
                numbers[epochs == epoch] = shuffled[places[epochs == epoch]]
        inputs, targets = self.sequences(split, draws.key(*stream), numbers)
        if split != "train":
            targets[numbers >= c.validation_examples] = IGNORE
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    def evaluation_steps(self, size: int, split: Split = "validation") -> int:
        return math.ceil(self.config.validation_examples / size)

    def evaluation_sets(self) -> dict[str, Task]:
        """This task at every point of the grid of its axes; what cannot be, at some of several axes, is left out.

        Raises:
            SpecError: a value that can be nowhere.
        """
        values = {axis: getattr(self.config, _option(axis)) for axis in sorted(self.axes)}
        values = {axis: some for axis, some in values.items() if some}
        found: dict[str, Task] = {}
        refused: dict[tuple[str, Any], SpecError] = {}
        for place in (dict(zip(values, point, strict=True)) for point in product(*values.values()) if values):
            try:
                task = self.at(place)
                task.check()
            except SpecError as error:
                refused |= {value: error for value in place.items() if value not in refused}
            else:
                found[",".join(f"{axis}={value}" for axis, value in place.items())] = task
        possible = {value for place in found for value in parse_axes(place).items()}
        for (axis, value), error in refused.items():
            if (axis, value) not in possible:
                raise SpecError(f"{value}: {error.reason}", place=f"task.options.{_option(axis)}", remedy=error.remedy)
        return found

    def at(self, place: Mapping[str, Any]) -> Task:
        """This task with the options that its axes have at a place."""
        return self.variant({self.axes[axis]: value for axis, value in place.items()})

    def variant(self, options: Mapping[str, Any]) -> Task:
        """This task with some other options.

        Raises:
            SpecError: a value outside its bounds.
        """
        try:
            config = self.Config(**{**self.config.model_dump(), **options})
        except ValidationError as error:
            first = error.errors()[0]
            raise SpecError(f"{first['loc'][0]}: {first['msg']}", place="task.options") from None
        return type(self)(config)

    def describe(self) -> dict[str, Any]:
        c = self.config
        return {
            "train sequences": c.train_examples or "always new",
            "validation sequences": c.validation_examples,
        }


def _option(axis: str) -> str:
    return f"test_{axis.removesuffix('s')}s"


def uniform_chance(ids: int) -> dict[str, float]:
    """What a uniform guess among `ids` tokens scores."""
    return {"accuracy": 1 / ids, "loss": math.log(ids)}

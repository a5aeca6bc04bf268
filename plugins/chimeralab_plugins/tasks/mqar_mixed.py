"""Associative recall trained on a mixture of lengths and numbers of pairs, and measured for each of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from chimeralab.contracts import IGNORE, Batch, Evaluation, Task, TaskConfig
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import uniform_chance
from chimeralab_plugins.tasks.mqar import Mqar, MqarConfig

_PART = re.compile(r"(\d+)x(\d+)(?::(\d+))?")


@dataclass(frozen=True)
class Part:
    """Sequences of one length and number of pairs."""

    length: int
    pairs: int
    examples: int


class MqarMixedConfig(TaskConfig):
    vocab_size: int = Field(8192, ge=4, le=1_000_000, description="Ids: the lower half keys, the upper values")
    train: str = Field(
        "64x4:100000 128x8:20000 256x16:20000 256x32:20000 256x64:20000",
        description="What to train on: tokens x pairs : sequences, several",
    )
    validation: str = Field(
        "64x4:1000 64x8:1000 64x16:1000 128x32:1000 256x64:1000",
        description="What to validate on, in the same form; each number of pairs once",
    )
    test: str = Field(
        "64x4:1000 64x8:1000 64x16:1000 128x32:1000 256x64:1000 512x128:1000 1024x256:1000",
        description="What to test on besides, each part by itself, in the same form; empty: nothing",
    )
    power_a: float = Field(0.01, gt=0, le=1, description="Query slot i has weight i^(a-1); 1 is uniform")
    random_non_queries: bool = Field(True, description="Fill the rest with random ids rather than with 0")
    data_seed: int = Field(0, ge=0, description="Chooses the sequences; the run's seed chooses their order")

    @field_validator("train", "validation", "test")
    @classmethod
    def _readable(cls, text: str, info: ValidationInfo) -> str:
        if text or info.field_name != "test":
            parts(text)
        return text


def parts(text: str) -> list[Part]:
    """Reads `64x4:100000 128x8:20000`.

    Raises:
        ValueError: it is not of that form.
    """
    found = []
    for word in text.replace(",", " ").split():
        match = _PART.fullmatch(word)
        numbers = [int(number) for number in match.groups()] if match and match[3] else []
        fits = numbers and 0 < numbers[1] < numbers[0] and 4 <= numbers[0] <= 65_536 and 0 < numbers[2] <= 10_000_000
        if not fits:
            raise ValueError(f"{word!r} is not tokens x pairs : sequences, such as 64x4:100000")
        found.append(Part(*numbers))
    if not found:
        raise ValueError("at least one part is needed, such as 64x4:100000")
    return found


class MqarMixed(Task):
    """MQAR as Based mixes it (arXiv 2402.18668; `zoology/experiments/arxiv24_based_figure2`).

    Sequences are those of `mqar`. A training batch comes from one part of the mixture, always the same sequences
    together, and the order of batches is drawn anew each epoch (by seed and rank); the last batch of a part is filled
    up from its start. Shorter sequences are padded with uncounted zeros to the longest, which a causal model cannot
    see from within them.

    Validation takes one sequence of each part in turn. `accuracy` is the mean over parts, and `accuracy@pairs=K` that
    of the sequences with K pairs. The evaluation sets are the parts of `test`, as Based has them up to 512x128 and
    1024x256, beyond what it trains on. Its recipe: two layers, batches of 256, 32 epochs, the best learning rate of
    logspace(-3, -1.5, 4).
    """

    name = "mqar_mixed"
    title = "Associative recall, mixed"
    summary = "Recall values over a mixture of lengths and numbers of pairs (Based)"
    source = "https://arxiv.org/abs/2402.18668"
    Config = MqarMixedConfig
    config: MqarMixedConfig
    metric = "accuracy"
    higher_is_better = True

    def check(self) -> None:
        for place, found in (("train", self._train), ("validation", self._validation), ("test", self._test)):
            for part in found:
                try:
                    self._mqar(part).check()
                except SpecError as error:
                    what = f"part {part.length}x{part.pairs}: {error.reason}"
                    raise SpecError(what, place=f"task.options.{place}", remedy=error.remedy) from None
        pairs = [part.pairs for part in self._validation]
        if len(set(pairs)) < len(pairs):
            raise SpecError(
                "two parts have the same number of pairs, by which accuracy is told apart",
                place="task.options.validation",
                remedy="Give each part another number of pairs",
            )

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        """Nothing is stored: a sequence is computed when it is asked for."""

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return max(part.length for part in self._train)

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        """Validation steps start over after `evaluation_steps`; rows past the last sequence count nothing."""
        if split != "train":
            return self._held_out(split, step % self.evaluation_steps(size), size)
        counts = [math.ceil(part.examples / size) for part in self._train]
        epoch, place = divmod(step, sum(counts))
        chosen = int(draws.order(draws.key("mqar_mixed order", seed, rank, epoch), sum(counts))[place])
        ends = np.cumsum(counts)
        index = int(np.searchsorted(ends, chosen, side="right"))
        part, first = self._train[index], (chosen - (ends[index] - counts[index])) * size
        numbers = (first + np.arange(size)) % part.examples
        return self._stacked(split, size, self.sequence_length, [(part, np.arange(size), numbers)])

    def evaluation_steps(self, size: int, split: Split = "validation") -> int:
        return math.ceil(len(self._turns) / size)

    def evaluation_sets(self) -> dict[str, Task]:
        return {f"length={part.length},pairs={part.pairs}": self._mqar(part) for part in self._test}

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:  # logits: B T V
        """Sums for each number of pairs beside those over all."""
        total = super().measure(logits, batch)
        counted = batch.targets != IGNORE
        right = ((logits.argmax(-1) == batch.targets) & counted).sum(1).tolist()
        for correct, targets in zip(right, counted.sum(1).tolist(), strict=True):
            if targets:
                for name, value in ((f"correct_{targets}", correct), (f"targets_{targets}", targets)):
                    total.sums[name] = total.sums.get(name, 0.0) + value
        return total

    def metrics(self, total: Evaluation) -> dict[str, float]:
        every = {
            f"accuracy@pairs={part.pairs}": total.sums[f"correct_{part.pairs}"] / total.sums[f"targets_{part.pairs}"]
            for part in self._validation
            if f"targets_{part.pairs}" in total.sums
        }
        return {**super().metrics(total), **every, "accuracy": sum(every.values()) / max(len(every), 1)}

    def chance(self) -> dict[str, float]:
        """A uniform guess among the values."""
        guess = uniform_chance(self.vocab_size - self.vocab_size // 2)
        return {**guess, **{f"accuracy@pairs={part.pairs}": guess["accuracy"] for part in self._validation}}

    def describe(self) -> dict[str, Any]:
        return {
            "train sequences": sum(part.examples for part in self._train),
            "validation sequences": len(self._turns),
        }

    @cached_property
    def _train(self) -> list[Part]:
        return parts(self.config.train)

    @cached_property
    def _validation(self) -> list[Part]:
        return parts(self.config.validation)

    @cached_property
    def _test(self) -> list[Part]:
        return parts(self.config.test) if self.config.test else []

    @cached_property
    def _turns(self) -> NDArray[np.int64]:
        """Part and number of each held-out sequence: the first of every part, then the second."""
        pairs = [(number, index) for index, part in enumerate(self._validation) for number in range(part.examples)]
        return np.array([(index, number) for number, index in sorted(pairs)])

    def _mqar(self, part: Part) -> Mqar:
        c = self.config
        return Mqar(
            MqarConfig(
                vocab_size=c.vocab_size,
                sequence_length=part.length,
                pairs=part.pairs,
                validation_examples=min(part.examples, 1_000_000),
                data_seed=c.data_seed,
                power_a=c.power_a,
                random_non_queries=c.random_non_queries,
            )
        )

    def _held_out(self, split: Split, step: int, size: int) -> Batch:
        turns = self._turns[step * size : (step + 1) * size]
        chosen = []
        for index, part in enumerate(self._validation):
            rows = np.nonzero(turns[:, 0] == index)[0]
            chosen.append((part, rows, turns[rows, 1]))
        return self._stacked(split, size, max(part.length for part in self._validation), chosen)

    def _stacked(self, split: Split, size: int, width: int, chosen: Iterable[tuple[Part, NDArray, NDArray]]) -> Batch:
        """A batch (size, width) whose given rows hold the sequences of these numbers of a part."""
        inputs = np.zeros((size, width), np.int64)
        targets = np.full_like(inputs, IGNORE)
        for part, rows, numbers in chosen:
            stream = draws.key(self.name, split, self.config.data_seed, part.length, part.pairs)
            found = self._mqar(part).sequences(split, stream, numbers)
            inputs[rows, : part.length], targets[rows, : part.length] = found
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

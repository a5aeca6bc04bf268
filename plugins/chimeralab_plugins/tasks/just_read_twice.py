"""A recall task whose prompt is read once or twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor

from chimeralab.contracts import IGNORE, Batch, Evaluation, Task
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.generated import GeneratedConfig, GeneratedTask
from chimeralab_plugins.tasks.induction import Induction
from chimeralab_plugins.tasks.mqar import Mqar
from chimeralab_plugins.tasks.needle import Needle
from chimeralab_plugins.tasks.phonebook import Phonebook

RECALL: dict[str, type[GeneratedTask]] = {task.name: task for task in (Phonebook, Needle, Mqar, Induction)}


@contextmanager
def _within_options() -> Iterator[None]:
    """What the inner task refuses is told of at its place in the options of this one."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SpecError(first["msg"], place=f"task.options.options.{place}") from None
    except SpecError as error:
        place = error.place.removeprefix("task.options.")
        raise SpecError(error.reason, place=f"task.options.options.{place}", remedy=error.remedy) from None


class JustReadTwiceConfig(GeneratedConfig):
    recall: Literal["phonebook", "needle", "mqar", "induction"] = Field(
        "phonebook", description="What is to be recalled"
    )
    options: dict[str, Any] = Field({}, description="Options of that task which differ from its defaults")
    times: Literal[1, 2] = Field(2, description="How often the prompt is read before the answer is asked for")


class JustReadTwice(GeneratedTask):
    """The prompt of a recall task, context and question, once or twice in a row; targets stand in the last reading.

    As "Just read twice" (arXiv 2407.05483) prompts recurrent models: in the second reading a state knows what will be
    asked for, so that it need not hold all. Compare `times` 1 and 2. An answer that the inner task writes out (the
    digits of a phone number) is no part of the prompt and stands in neither reading. Sequences, metrics and evaluation
    sets are those of the inner task, whose options stand in `options`; how many sequences there are is said here.
    """

    name = "just_read_twice"
    title = "Just read twice"
    summary = "Recall from a prompt that is read once or twice"
    source = "https://arxiv.org/abs/2407.05483"
    Config = JustReadTwiceConfig
    config: JustReadTwiceConfig

    @cached_property
    def inner(self) -> GeneratedTask:
        """The task that is read.

        Raises:
            SpecError: its options cannot work.
        """
        cls = RECALL[self.config.recall]
        with _within_options():
            task = cls(cls.Config(**self.config.options))
            task.check()
        return task

    def check(self) -> None:
        _ = self.inner

    @property
    def vocab_size(self) -> int:
        return self.inner.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.inner.sequence_length * self.config.times

    @property
    def causal(self) -> bool:
        return self.inner.causal

    def evaluation_sets(self) -> dict[str, Task]:
        with _within_options():
            sets = self.inner.evaluation_sets()
        return {place: self.variant({"options": task.config.model_dump()}) for place, task in sets.items()}

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:
        return self.inner.measure(logits, batch)

    def metrics(self, total: Evaluation) -> dict[str, float]:
        return self.inner.metrics(total)

    def chance(self) -> dict[str, float]:
        """That of the inner task."""
        return self.inner.chance()

    def decode(self, tokens: Tensor) -> str:
        return self.inner.decode(tokens)

    def describe(self) -> dict[str, Any]:
        return {**self.inner.describe(), **super().describe()}

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        inputs, targets = self.inner.sequences(split, stream, numbers)
        B, T = inputs.shape
        shown = np.ones((B, T), bool)
        if self.inner.writes_answer:
            shown = np.arange(T) <= (targets != IGNORE).argmax(1)[:, None]
        before = self.config.times - 1
        there = np.concatenate([shown] * before + [np.ones((B, T), bool)], 1)
        place = (np.cumsum(there, 1) - 1)[there]
        rows = np.nonzero(there)[0]
        tokens = np.zeros(there.shape, np.int64)
        tokens[rows, place] = np.tile(inputs, before + 1)[there]
        asked = np.full(there.shape, IGNORE)
        asked[rows, place] = np.concatenate([np.full((B, T * before), IGNORE), targets], 1)[there]
        return tokens, asked

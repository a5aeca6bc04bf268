"""A fixed dictionary that only the weights can hold."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import TRAIN, uniform_chance
from chimeralab_plugins.tasks.mad import LENGTH, VOCAB, MadConfig, MadTask


class MemorizationConfig(MadConfig):
    train_examples: int | None = Field(256, ge=1, le=10_000_000, description=TRAIN)
    vocab_size: int = Field(256, ge=4, le=1_000_000, description=VOCAB)
    sequence_length: int = Field(32, ge=2, le=1_048_576, description=LENGTH + ", even")


class Memorization(MadTask):
    """Keys, each followed by an insert token, at which its value is to be said; the values are nowhere in the input.

    With V ids: id V-1 is the insert token, the lower half of the others are keys, the upper half values. Each key has
    a value of its own, drawn once by `data_seed` and the same in all sequences and splits.
    """

    name = "memorization"
    title = "Memorization"
    summary = "Learn a fixed dictionary by heart (MAD)"
    Config = MemorizationConfig
    config: MemorizationConfig

    def check(self) -> None:
        if self.config.sequence_length % 2:
            raise SpecError(
                f"a sequence of {self.config.sequence_length} tokens is odd",
                place="task.options.sequence_length",
                remedy="It holds keys and insert tokens in turn; take an even number",
            )

    @property
    def causal(self) -> bool:
        return False

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """The value of each key."""
        keys = (self.vocab_size - 1) // 2
        stream = draws.key(self.name, "dictionary", self.config.data_seed)
        return keys + draws.order(stream, self.vocab_size - 1 - keys)[:keys]

    def chance(self) -> dict[str, float]:
        """A uniform guess among the values of the dictionary."""
        return uniform_chance(len(self.values))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "keys": len(self.values)}

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        (random,) = draws.of_rows(stream, numbers, [self.sequence_length // 2])
        keys = draws.below(random, len(self.values))
        inputs = np.full((len(numbers), self.sequence_length), self.vocab_size - 1)
        inputs[:, ::2] = keys
        targets = np.full_like(inputs, IGNORE)
        targets[:, 1::2] = self.values[keys]
        return inputs, targets

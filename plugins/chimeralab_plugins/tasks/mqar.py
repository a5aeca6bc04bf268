"""Multi-query associative recall: key-value pairs first, then each key again; what was its value?"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import (
    TEST_LENGTHS,
    TRAIN,
    VALIDATION,
    GeneratedConfig,
    GeneratedTask,
    uniform_chance,
)


class MqarConfig(GeneratedConfig):
    vocab_size: int = Field(8192, ge=4, le=1_000_000, description="Ids: the lower half keys, the upper values")
    sequence_length: int = Field(64, ge=4, le=1_048_576, description="Tokens in a sequence, even")
    pairs: int = Field(4, ge=1, le=65_536, description="Key-value pairs in a sequence, each asked for once")
    power_a: float = Field(0.01, gt=0, le=1, description="Query slot i has weight i^(a-1); 1 is uniform")
    random_non_queries: bool = Field(True, description="Fill the rest with random ids rather than with 0")
    test_lengths: tuple[int, ...] = Field((), description=TEST_LENGTHS)
    test_pairs: tuple[int, ...] = Field((), description="Numbers of pairs to test on besides, at each of the lengths")
    train_examples: int | None = Field(100_000, ge=1, le=10_000_000, description=TRAIN)
    validation_examples: int = Field(3_000, ge=1, le=1_000_000, description=VALIDATION)


class Mqar(GeneratedTask):
    """MQAR exactly as Zoology generates it (arXiv:2312.04927, appendix; `zoology/data/multiquery_ar.py`).

    With V ids, K pairs and L tokens: keys are distinct ids of 1 … V/2-1, values distinct ids of V/2 … V-1. The
    sequence opens with k₁ v₁ … k_K v_K. Of the (L-2K)/2 even slots after that, each key in turn takes one that is
    still free, slot i (from 1) with weight i^(a-1). The target at a query is its value; nothing else is counted.
    Zeros (all other places) become ids drawn from the whole vocabulary, keys and values included.
    """

    name = "mqar"
    title = "Multi-query associative recall"
    summary = "Recall the values of several keys seen once (Zoology)"
    source = "https://arxiv.org/abs/2312.04927"
    Config = MqarConfig
    config: MqarConfig
    axes: ClassVar = {"length": "sequence_length", "pairs": "pairs"}

    def check(self) -> None:
        c = self.config
        if c.sequence_length % 2:
            raise SpecError(
                f"a sequence of {c.sequence_length} tokens is odd",
                place="task.options.sequence_length",
                remedy="Queries stand at even places; take an even number",
            )
        if 4 * c.pairs > c.sequence_length:
            raise SpecError(
                f"{c.pairs} pairs and their queries do not fit in {c.sequence_length} tokens",
                place="task.options.sequence_length",
                remedy=f"Take at least {4 * c.pairs} tokens, or at most {c.sequence_length // 4} pairs",
            )
        if c.vocab_size // 2 - 1 < c.pairs:
            raise SpecError(
                f"{c.vocab_size} ids give {c.vocab_size // 2 - 1} keys, fewer than {c.pairs} pairs",
                place="task.options.vocab_size",
                remedy=f"Take at least {2 * c.pairs + 2}",
            )

    def chance(self) -> dict[str, float]:
        """A uniform guess among the values."""
        return uniform_chance(self.vocab_size - self.vocab_size // 2)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "answers in a sequence": self.config.pairs}

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c = self.config
        K, L, half = c.pairs, c.sequence_length, c.vocab_size // 2
        slots = (L - 2 * K) // 2
        for_keys, for_values, for_slots, for_fillers = draws.of_rows(stream, numbers, [K, K, slots, L])

        keys = 1 + draws.distinct(for_keys, half - 1)  # B K
        values = half + draws.distinct(for_values, c.vocab_size - half)
        # Taking slots one after another in proportion to their weights is the same as an exponential race:
        # the K smallest of E_i / weight_i, in order (Efraimidis and Spirakis, 2006).
        weight = np.arange(1, slots + 1) ** (c.power_a - 1)
        finish = -np.log(draws.unit(for_slots)) / weight
        queries = 2 * K + 2 * np.argsort(finish, axis=1)[:, :K]

        inputs = np.zeros((len(numbers), L), np.int64)
        inputs[:, 0 : 2 * K : 2], inputs[:, 1 : 2 * K : 2] = keys, values
        np.put_along_axis(inputs, queries, keys, axis=1)
        targets = np.full_like(inputs, IGNORE)
        np.put_along_axis(targets, queries, values, axis=1)
        if c.random_non_queries:
            inputs = np.where(inputs == 0, draws.below(for_fillers, c.vocab_size), inputs)
        return inputs, targets

"""Multi-query associative recall: key-value pairs first, then each key again; what was its value?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE, Batch, Task, TaskConfig
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws


class MqarConfig(TaskConfig):
    vocab_size: int = Field(8192, ge=4, le=1_000_000, description="Ids: the lower half keys, the upper values")
    sequence_length: int = Field(64, ge=4, le=1_048_576, description="Tokens in a sequence, even")
    pairs: int = Field(4, ge=1, le=65_536, description="Key-value pairs in a sequence, each asked for once")
    power_a: float = Field(0.01, gt=0, le=1, description="Query slot i has weight i^(a-1); 1 is uniform")
    random_non_queries: bool = Field(True, description="Fill the rest with random ids rather than with 0")
    train_examples: int = Field(100_000, ge=1, le=10_000_000, description="Sequences in an epoch")
    validation_examples: int = Field(3_000, ge=1, le=1_000_000, description="Sequences to validate on")
    data_seed: int = Field(0, ge=0, description="Chooses the sequences; the run's seed chooses their order")


class Mqar(Task):
    """MQAR exactly as Zoology generates it (arXiv:2312.04927, appendix; `zoology/data/multiquery_ar.py`).

    With V ids, K pairs and L tokens: keys are distinct ids of 1 … V/2-1, values distinct ids of V/2 … V-1. The
    sequence opens with k₁ v₁ … k_K v_K. Of the (L-2K)/2 even slots after that, each key in turn takes one that is
    still free, slot i (from 1) with weight i^(a-1). The target at a query is its value; nothing else is counted.
    Zeros (all other places) become ids drawn from the whole vocabulary, keys and values included.

    Sequence n of a split is a pure function of (`data_seed`, split, n). Training shuffles the finite set anew each
    epoch (by seed and rank); validation and test walk theirs in order, whatever the seed and rank.
    """

    name = "mqar"
    title = "Multi-query associative recall"
    summary = "Recall the values of several keys seen once (Zoology)"
    source = "https://arxiv.org/abs/2312.04927"
    Config = MqarConfig
    config: MqarConfig
    metric = "accuracy"
    higher_is_better = True

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

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        """Nothing is stored: a sequence is computed when it is asked for."""

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        """Validation steps start over after `evaluation_steps`; rows past the last sequence count nothing."""
        rows = np.arange(size)
        if split == "train":
            epochs, places = np.divmod(step * size + rows, self.config.train_examples)
            examples = np.empty(size, np.int64)
            for epoch in np.unique(epochs):
                shuffled = draws.order(draws.key("mqar order", seed, rank, int(epoch)), self.config.train_examples)
                examples[epochs == epoch] = shuffled[places[epochs == epoch]]
        else:
            examples = step % self.evaluation_steps(size) * size + rows
        inputs, targets = self._sequences(split, examples)
        if split != "train":
            targets[examples >= self.config.validation_examples] = IGNORE
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    def evaluation_steps(self, size: int) -> int:
        return math.ceil(self.config.validation_examples / size)

    def chance(self) -> dict[str, float]:
        """A uniform guess among the values."""
        values = self.vocab_size - self.vocab_size // 2
        return {"accuracy": 1 / values, "loss": math.log(values)}

    def describe(self) -> dict[str, Any]:
        c = self.config
        return {
            "train sequences": c.train_examples,
            "validation sequences": c.validation_examples,
            "answers in a sequence": c.pairs,
        }

    def _sequences(self, split: Split, examples: NDArray) -> tuple[NDArray, NDArray]:
        """Inputs and targets (B, L) of the sequences with these numbers."""
        c = self.config
        K, L, half = c.pairs, c.sequence_length, c.vocab_size // 2
        slots = (L - 2 * K) // 2
        # Every sequence owns as many positions of the stream as it needs draws.
        needed = np.cumsum([K, K, slots, L])
        positions = examples[:, None] * needed[-1] + np.arange(needed[-1])
        stream = draws.key("mqar", split, c.data_seed)
        for_keys, for_values, for_slots, for_fillers = np.split(draws.bits(stream, positions), needed[:-1], axis=1)

        keys = 1 + _distinct(for_keys, half - 1)  # B K
        values = half + _distinct(for_values, c.vocab_size - half)
        # Taking slots one after another in proportion to their weights is the same as an exponential race:
        # the K smallest of E_i / weight_i, in order (Efraimidis and Spirakis, 2006).
        weight = np.arange(1, slots + 1) ** (c.power_a - 1)
        finish = -np.log(draws.unit(for_slots)) / weight
        queries = 2 * K + 2 * np.argsort(finish, axis=1)[:, :K]

        inputs = np.zeros((len(examples), L), np.int64)
        inputs[:, 0 : 2 * K : 2], inputs[:, 1 : 2 * K : 2] = keys, values
        np.put_along_axis(inputs, queries, keys, axis=1)
        targets = np.full_like(inputs, IGNORE)
        np.put_along_axis(targets, queries, values, axis=1)
        if c.random_non_queries:
            inputs = np.where(inputs == 0, draws.below(for_fillers, c.vocab_size), inputs)
        return inputs, targets


def _distinct(random: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """K different numbers of 0 … n-1 in random order, for each row of `random` (B, K): K steps of Fisher-Yates."""
    B, K = random.shape
    urn = np.tile(np.arange(n, dtype=np.int32), (B, 1))
    rows = np.arange(B)
    for k in range(K):
        other = k + draws.below(random[:, k], n - k)
        urn[rows, k], urn[rows, other] = urn[rows, other], urn[rows, k]
    return urn[:, :K].astype(np.int64)

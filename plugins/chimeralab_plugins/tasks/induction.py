"""An induction head: what came after the special token the first time?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import TEST_LENGTHS, GeneratedConfig, GeneratedTask, uniform_chance


class InductionConfig(GeneratedConfig):
    vocab_size: int = Field(16, ge=3, le=1_000_000, description="Ids, the special one included")
    sequence_length: int = Field(256, ge=4, le=1_048_576, description="Tokens in a sequence")
    every_token: bool = Field(False, description="Train to predict every next token rather than the answer alone")
    test_lengths: tuple[int, ...] = Field((64, 128, 256, 512, 1024, 2048, 4096), description=TEST_LENGTHS)


class Induction(GeneratedTask):
    """Random tokens with a special one among them and again at the end, where the token after the first is asked for.

    With V ids and L tokens: id V-1 is special, the others are uniform; it replaces the token at a place uniform in
    0 … L-4 and stands at L-1. The default is Mamba's (arXiv 2312.00752, section 4.1.2 and appendix E.1): V = 16,
    trained at L = 256 on ever new sequences in batches of 8, tested from 2⁶ to 2²⁰, which `test_lengths` takes where
    there is memory and time. Safari's (arXiv 2212.14052; `src/dataloaders/synthetics.py`) has 20 ids, of which one is
    special and one never seen, so V = 19 here, with `every_token`, a finite set of sequences (`train_examples`) and one
    token more than its `input_seq_len`.
    """

    name = "induction"
    title = "Induction head"
    summary = "Recall what followed a special token, trained short and tested long"
    source = "https://arxiv.org/abs/2312.00752"
    Config = InductionConfig
    config: InductionConfig
    axes: ClassVar = {"length": "sequence_length"}

    @property
    def causal(self) -> bool:
        return self.config.every_token

    def chance(self) -> dict[str, float]:
        """A uniform guess among the tokens that are not special."""
        return uniform_chance(self.vocab_size - 1)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        L, special = self.sequence_length, self.vocab_size - 1
        for_tokens, for_place = draws.of_rows(stream, numbers, [L - 1, 1])
        inputs = np.full((len(numbers), L), special)
        inputs[:, :-1] = draws.below(for_tokens, special)
        place = draws.below(for_place, L - 3)
        np.put_along_axis(inputs, place, special, 1)
        targets = np.full_like(inputs, IGNORE)
        if split == "train" and self.config.every_token:
            targets[:, :-1] = inputs[:, 1:]
        targets[:, -1] = np.take_along_axis(inputs, place + 1, 1)[:, 0]
        return inputs, targets

"""What state-tracking tasks share, and the simplest one: the parity of a string of bits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE, Evaluation, Task
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import VALIDATION, GeneratedConfig, GeneratedTask, uniform_chance


class StateTrackingTask(GeneratedTask):
    """Asks for one of `answers` states; scaled accuracy is 0 for a uniform guess and 1 when all are right.

    Scaled accuracy is (accuracy - 1/answers) / (1 - 1/answers), as xLSTM has it (arXiv 2405.04517, section 4.1).
    """

    metric = "scaled_accuracy"
    answers: int  # how many states there are

    @property
    def causal(self) -> bool:
        return False

    def metrics(self, total: Evaluation) -> dict[str, float]:
        found, guess = super().metrics(total), 1 / self.answers
        return {**found, "scaled_accuracy": (found["accuracy"] - guess) / (1 - guess)}

    def chance(self) -> dict[str, float]:
        """A uniform guess among the states."""
        return {**uniform_chance(self.answers), "scaled_accuracy": 0.0}


class FormalLanguageConfig(GeneratedConfig):
    validation_examples: int = Field(8_192, ge=1, le=1_000_000, description=VALIDATION)
    min_length: int = Field(3, ge=3, le=65_536, description="Tokens of the shortest sequence, its answer included")
    max_length: int = Field(40, ge=3, le=65_536, description="Tokens of the longest sequence, its answer included")
    test_lengths: tuple[int, ...] = Field(
        (40, 256), description="Also test on sequences of so many tokens: longer than the length before, to this one"
    )


class FormalLanguageTask(StateTrackingTask):
    """Strings whose value is asked for at their last token; each draws its length, and padding follows.

    xLSTM and DeltaNet with negative eigenvalues (arXiv 2411.12537) train on 3 to 40 tokens and test on 40 to 256, with
    two layers of width 64 to 128, batches of 256 and learning rate 1e-3. The evaluation set of length n has uniform
    lengths from one more than the length before it in `test_lengths` up to n, so that the default's set of length 256
    is theirs but for its lowest length, and sets of equal steps average to one over all of them.
    """

    Config = FormalLanguageConfig
    config: FormalLanguageConfig
    axes: ClassVar = {"length": "max_length"}

    def check(self) -> None:
        c = self.config
        if c.min_length > c.max_length:
            raise SpecError(
                f"the shortest sequence has {c.min_length} tokens, the longest {c.max_length}",
                place="task.options.min_length",
                remedy=f"Take {c.max_length} at most, or raise max_length",
            )
        if any(a >= b for a, b in pairwise(c.test_lengths)):
            raise SpecError(
                f"the lengths to test on do not rise: {', '.join(map(str, c.test_lengths))}",
                place="task.options.test_lengths",
                remedy="Give each once, the shortest first",
            )

    def at(self, place: Mapping[str, Any]) -> Task:
        shorter = [length for length in self.config.test_lengths if length < place["length"]]
        least = shorter[-1] + 1 if shorter else self.config.min_length
        return self.variant({"min_length": least, "max_length": place["length"]})

    @property
    def sequence_length(self) -> int:
        return self.config.max_length - 1

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "tokens": f"{self.config.min_length} to {self.config.max_length}"}


class Parity(FormalLanguageTask):
    """Whether a string of random bits has an odd number of ones, asked for at its last bit.

    As in xLSTM's experiments: a sequence of n tokens is n - 1 bits and the answer, which the model does not see.
    Ids 0 and 1 are the bits, 2 is padding.
    """

    name = "parity"
    title = "Parity"
    summary = "Say whether a string of bits has an odd number of ones"
    source = "https://arxiv.org/abs/2207.02098"
    vocab_size = 3
    answers = 2

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        shortest, longest = self.config.min_length, self.config.max_length
        for_lengths, for_bits = draws.of_rows(stream, numbers, [1, longest - 1])
        bits = draws.below(for_bits, 2)
        last = shortest - 2 + draws.below(for_lengths, longest - shortest + 1)  # B 1
        place = np.arange(longest - 1)
        inputs = np.where(place <= last, bits, 2)
        parity = np.cumsum(bits, 1) % 2
        return inputs, np.where(place == last, parity, IGNORE)

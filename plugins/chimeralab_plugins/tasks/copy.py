"""Write a string down again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import Task
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.exact_match import ExactMatchTask
from chimeralab_plugins.tasks.generated import GeneratedConfig
from chimeralab_plugins.tasks.spelling import NOTHING, joined


class CopyConfig(GeneratedConfig):
    letters: int = Field(26, ge=2, le=1_000_000, description="Ids that strings are made of; four more are signs")
    min_length: int = Field(20, ge=1, le=65_536, description="Letters of the shortest string")
    max_length: int = Field(50, ge=1, le=65_536, description="Letters of the longest string")
    sequence_length: int = Field(220, ge=4, le=1_048_576, description="Tokens in a sequence; training fills it")
    test_lengths: tuple[int, ...] = Field((50, 100, 200, 300), description="Letters of the strings to test on besides")


class Copy(ExactMatchTask):
    """String copying as in "Repeat after me" (arXiv 2402.01032; `synthetic_exps/data_utils.py`): `$abc|abc.`

    A string's length is uniform in `min_length` … `max_length`, its letters are uniform. Training packs strings one
    after another into a sequence and counts each copy and the full stop after it; the last string is cut and not
    counted. Validation and test have one string a sequence, padded, and count its letters: `exact_match` is the paper's
    string accuracy, `accuracy` its character accuracy. The evaluation set `length=n` has strings of n letters exactly.
    The paper's Transformer copies strings longer than it was trained on; state-space models do not.

    Ids: the letters, then $ | . and padding. Paper's recipe: batches of 8 to 64 sequences, learning rate 1e-5 to 1e-3.
    """

    name = "copy"
    title = "Copy"
    summary = "Write a string down again, shorter in training than in the test"
    source = "https://arxiv.org/abs/2402.01032"
    Config = CopyConfig
    config: CopyConfig
    writes_answer = True
    axes: ClassVar = {"length": "max_length"}

    def check(self) -> None:
        c = self.config
        if c.min_length > c.max_length:
            raise SpecError(
                f"the shortest string has {c.min_length} letters, the longest {c.max_length}",
                place="task.options.min_length",
                remedy=f"Take {c.max_length} at most, or raise max_length",
            )
        if c.sequence_length < 2 * c.max_length + 2:
            raise SpecError(
                f"a string of {c.max_length} letters and its copy do not fit in {c.sequence_length} tokens",
                place="task.options.sequence_length",
                remedy=f"Take at least {2 * c.max_length + 2}, or a smaller max_length",
            )

    @property
    def vocab_size(self) -> int:
        return self.config.letters + 4

    def at(self, place: Mapping[str, Any]) -> Task:
        n = place["length"]
        return self.variant({"min_length": n, "max_length": n, "sequence_length": 2 * n + 2})

    def chance(self) -> dict[str, float]:
        """Uniform guesses among the letters, for strings of the mean length."""
        c = self.config
        lengths = np.arange(c.min_length, c.max_length + 1)
        match = float((float(c.letters) ** -lengths).mean())
        return {"accuracy": 1 / c.letters, "loss": math.log(c.letters), "exact_match": match}

    def decode(self, tokens: torch.Tensor) -> str:
        if self.config.letters > len(ascii_lowercase):
            return super().decode(tokens)
        signs = ascii_lowercase[: self.config.letters] + "$|.*"
        return "".join(signs[int(token)] for token in tokens)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c, B, T = self.config, len(numbers), self.sequence_length
        dollar, bar, stop, padding = range(c.letters, c.letters + 4)
        N = math.ceil((T + 1) / (2 * c.min_length + 3)) if split == "train" else 1
        for_lengths, for_letters = draws.of_rows(stream, numbers, [N, N * c.max_length])
        lengths = c.min_length + draws.below(for_lengths, c.max_length - c.min_length + 1)  # B N
        ends = np.cumsum(2 * lengths + 3, 1)
        letters = draws.below(for_letters, c.letters).reshape(B, N, -1)
        letters = np.where(np.arange(c.max_length) < lengths[..., None], letters, NOTHING)
        pieces: list[Any] = []
        for n in range(N):
            whole = ends[:, n : n + 1] <= T + 1
            string = letters[:, n]
            pieces += [(dollar, False), (string, False), (bar, False), (string, whole)]
            pieces += [(stop, whole if split == "train" else False)]
        return joined(pieces, B, T, padding)

"""Copy the tokens that stand between blanks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import uniform_chance
from chimeralab_plugins.tasks.mad import LENGTH, VOCAB, MadConfig, MadTask


class SelectiveCopyConfig(MadConfig):
    vocab_size: int = Field(16, ge=3, le=1_000_000, description=VOCAB)
    sequence_length: int = Field(256, ge=3, le=1_048_576, description=LENGTH)
    tokens_to_copy: int = Field(16, ge=1, le=65_536, description="Tokens between the blanks")


class SelectiveCopy(MadTask):
    """Tokens to copy, in order, with blanks between; then a copy token, and a blank for each token to be written.

    With V ids: id V-1 says copy, V-2 is blank, the others are drawn. With L ids and K tokens to copy, each of the
    L - 2K - 1 blanks of the first part stands before a token drawn uniformly, so that the K-th token comes last. The
    target at the i-th blank after the copy token is the i-th token; nothing else is counted.
    """

    name = "selective_copy"
    title = "Selective copy"
    summary = "Write down the tokens that stood between blanks (MAD)"
    Config = SelectiveCopyConfig
    config: SelectiveCopyConfig

    def check(self) -> None:
        c = self.config
        if c.sequence_length <= 2 * c.tokens_to_copy + 1:
            raise SpecError(
                f"{c.tokens_to_copy} tokens and their copies leave no blank in {c.sequence_length} tokens",
                place="task.options.sequence_length",
                remedy=f"Take at least {2 * c.tokens_to_copy + 2}, or fewer tokens_to_copy",
            )

    @property
    def causal(self) -> bool:
        return False

    def chance(self) -> dict[str, float]:
        """A uniform guess among the tokens that are drawn."""
        return uniform_chance(self.vocab_size - 2)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        B, L, V, K = len(numbers), self.sequence_length, self.vocab_size, self.config.tokens_to_copy
        blanks = L - 2 * K - 1
        for_tokens, for_blanks = draws.of_rows(stream, numbers, [K, blanks])
        tokens = draws.below(for_tokens, V - 2)
        before = draws.below(for_blanks, K)  # B blanks: the token that each stands before
        cells = np.arange(B)[:, None] * K + before
        counts = np.bincount(cells.ravel(), minlength=B * K).reshape(B, K)

        inputs = np.full((B, L), V - 2)
        np.put_along_axis(inputs, np.arange(K) + np.cumsum(counts, 1), tokens, 1)
        inputs[:, K + blanks] = V - 1
        targets = np.full((B, L), IGNORE)
        targets[:, -K:] = tokens
        return inputs, targets

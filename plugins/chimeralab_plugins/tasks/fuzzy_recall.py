"""Recall of keys and values that are motifs of several tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import uniform_chance
from chimeralab_plugins.tasks.mad import MadConfig, MadTask, first_places


class FuzzyRecallConfig(MadConfig):
    vocab_size: int = Field(16, ge=4, le=1_000_000, description="Ids: keys, values, and the last for padding")
    sequence_length: int = Field(128, ge=8, le=1_048_576, description="Tokens that the model sees")
    key_motif: int = Field(3, ge=1, le=8, description="Most tokens of a key")
    value_motif: int = Field(3, ge=1, le=8, description="Most tokens of a value")


class FuzzyRecall(MadTask):
    """Keys and values are motifs: up to three different tokens in a row; a key that comes again has its value again.

    With V ids and L tokens: the lower half of V - 1 ids makes keys, the upper half values, the last id pads. Pairs
    follow one another until fewer than `key_motif` + `value_motif` places are left before the last pair. That asks
    for one pair, drawn beforehand, which stands at the first pair border after a random place unless its key came
    before. Near the end there may be no such border, and then the last key was never there: so it is in MAD.
    Padding to L + 1 tokens stands in front. The model sees all but the last.

    Training draws the size of each motif and predicts every next token. Validation has keys of `key_motif` tokens
    always, and counts the values of keys seen before and that of the last pair.
    """

    name = "fuzzy_recall"
    title = "Fuzzy recall"
    summary = "Recall the values of keys that are several tokens (MAD)"
    Config = FuzzyRecallConfig
    config: FuzzyRecallConfig

    def check(self) -> None:
        c = self.config
        longest = c.key_motif + c.value_motif
        if c.sequence_length <= 2 * longest:
            raise SpecError(
                f"two pairs of up to {longest} tokens do not fit in {c.sequence_length} tokens",
                place="task.options.sequence_length",
                remedy=f"Take at least {2 * longest + 1}",
            )
        if self._keys < c.key_motif or self._values < c.value_motif:
            raise SpecError(
                f"{c.vocab_size} ids give {self._keys} for keys and {self._values} for values: too few for motifs of "
                f"{c.key_motif} and {c.value_motif} different tokens",
                place="task.options.vocab_size",
                remedy=f"Take at least {1 + max(2 * c.key_motif, 2 * c.value_motif)}",
            )

    @property
    def _keys(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def _values(self) -> int:
        return self.vocab_size - 1 - self._keys

    def chance(self) -> dict[str, float]:
        """A uniform guess among the tokens of values."""
        return uniform_chance(self._values)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c, B, L = self.config, len(numbers), self.config.sequence_length
        shortest = 2 if split == "train" else c.key_motif + 1
        N = 1 + -(-L // shortest)  # pairs: the one to ask for, and as many as could fit
        widths = [N, N, N * c.key_motif, N * c.value_motif, 1]
        for_key_sizes, for_value_sizes, for_keys, for_values, for_place = draws.of_rows(stream, numbers, widths)
        key_sizes = np.full((B, N), c.key_motif)
        if split == "train":
            key_sizes = 1 + draws.below(for_key_sizes, c.key_motif)
        value_sizes = 1 + draws.below(for_value_sizes, c.value_motif)
        keys = _motifs(for_keys, key_sizes, self._keys)  # B N key_motif, -1 past the end
        values = _motifs(for_values, value_sizes, self._values)
        codes = ((keys + 1) * (self._keys + 1) ** np.arange(c.key_motif)).sum(2)  # B N: a number for each key

        # Pair 0 is the one to ask for; it is put at the first border after its place unless its key stands before.
        asked_size = key_sizes[:, :1] + value_sizes[:, :1]  # B 1
        place = draws.below(for_place, L - 2 * asked_size)
        starts = _starts(key_sizes, value_sizes, codes)
        border = 1 + (starts[:, 1:] >= place).argmax(1)
        column = np.arange(N)
        absent = ~((codes == codes[:, :1]) & (column > 0) & (column < border[:, None])).any(1)
        keys[absent, border[absent]] = keys[absent, 0]
        codes[absent, border[absent]] = codes[absent, 0]
        key_sizes[absent, border[absent]] = key_sizes[absent, 0]

        # Lay the pairs out; those that start too late are dropped and the last one follows.
        first = first_places(codes)
        starts = _starts(key_sizes, value_sizes, codes)
        late = starts >= L - asked_size - c.key_motif - c.value_motif
        end = np.where(late, starts, L).min(1)
        shown = ~late
        shown[:, 0] = False
        came = np.zeros((B, N), bool)
        came[:, 1:] = first_places(codes[:, 1:]) < column[:-1]
        came[:, 0] = shown[:, 0] = True  # pair 0 is now the last one
        starts[:, 0] = end
        starts += (L + 1 - end)[:, None] - asked_size

        tokens = np.full((B, L + 1), self.vocab_size - 1)
        targets = np.full((B, L + 1), IGNORE)
        values = np.where(values >= 0, values + self._keys, -1)
        values = np.take_along_axis(values, first[..., None], 1)
        _write(tokens, keys, starts, shown)
        _write(tokens, values, starts + key_sizes, shown)
        _write(targets, values, starts + key_sizes, shown & came)
        if split == "train":
            targets = tokens
        return tokens[:, :-1].copy(), targets[:, 1:].copy()


def _motifs(random: NDArray[np.uint64], sizes: NDArray, n: int) -> NDArray[np.int64]:
    """For each of the `sizes` (B, N) so many different numbers below n, then -1: (B, N, longest)."""
    B, N = sizes.shape
    tokens = draws.distinct(random.reshape(B * N, -1), n).reshape(B, N, -1)
    return np.where(np.arange(tokens.shape[2]) < sizes[..., None], tokens, -1)


def _starts(key_sizes: NDArray, value_sizes: NDArray, codes: NDArray) -> NDArray[np.int64]:
    """Where each pair (B, N) starts when all stand in a row, pair 0 taking no room. A key's first value stays."""
    sizes = key_sizes + np.take_along_axis(value_sizes, first_places(codes), 1)
    sizes[:, 0] = 0
    return np.cumsum(sizes, 1) - sizes


def _write(into: NDArray, motifs: NDArray, starts: NDArray, which: NDArray) -> None:
    """Put the tokens (B, N, longest) of `which` motifs (B, N) at their `starts` (B, N) in `into` (B, T)."""
    rows, pairs, j = np.nonzero((motifs >= 0) & which[..., None])
    into[rows, starts[rows, pairs] + j] = motifs[rows, pairs, j]

"""What the six tasks of MAD share, and two of them: in-context recall, plain and with noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import TRAIN, GeneratedConfig, GeneratedTask, uniform_chance

VOCAB = "Ids, the special ones included"
LENGTH = "Tokens in a sequence"


class MadConfig(GeneratedConfig):
    train_examples: int | None = Field(12_800, ge=1, le=10_000_000, description=TRAIN)


class MadTask(GeneratedTask):
    """A task of the mechanistic architecture design suite (arXiv 2403.17844; `mad/data/instances.py`).

    MAD's recipe: width 128, two blocks of mixer and SwiGLU, batches of 128, 200 epochs of AdamW with cosine to 1e-6,
    the best of lr {1e-4, 5e-4, 1e-3} × weight decay {0, 0.1}. Its test set is the validation split here.

    Accuracy counts every target alike. MAD averages it over classes in each batch and then over batches, which
    differs where some classes have more targets than others.
    """

    source = "https://arxiv.org/abs/2403.17844"
    Config = MadConfig
    config: MadConfig


class RecallConfig(MadConfig):
    vocab_size: int = Field(16, ge=4, le=1_000_000, description="Ids: the lower half keys, the upper values")
    sequence_length: int = Field(128, ge=4, le=1_048_576, description="Keys and values, even; the last is predicted")


class InContextRecall(MadTask):
    """Key-value pairs follow one another; a key that comes again has its first value again.

    With V ids and L tokens: L/2 - 1 pairs, each key drawn from the lower half of the ids, its value from the upper
    half when it first comes. The last pair asks for a key that was there. The model sees the first L - 1 tokens.
    Training predicts every next token; validation counts the values of keys seen before (MAD's `multi_query`).
    """

    name = "in_context_recall"
    title = "In-context recall"
    summary = "Recall the values of keys that come again (MAD)"
    Config = RecallConfig
    config: RecallConfig

    noise_ids = 0
    noise = 0.0

    def check(self) -> None:
        c = self.config
        if c.sequence_length % 2:
            raise SpecError(
                f"a sequence of {c.sequence_length} tokens is odd",
                place="task.options.sequence_length",
                remedy="It holds pairs of a key and a value; take an even number",
            )
        if c.vocab_size - self.noise_ids < 4:
            raise SpecError(
                f"{c.vocab_size} ids less {self.noise_ids} for noise leave too few for two keys and two values",
                place="task.options.vocab_size",
                remedy=f"Take at least {self.noise_ids + 4}",
            )

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length - 1

    @property
    def _keys(self) -> int:
        return (self.vocab_size - self.noise_ids) // 2

    @property
    def _values(self) -> int:
        return self.vocab_size - self.noise_ids - self._keys

    def chance(self) -> dict[str, float]:
        """A uniform guess among the values."""
        return uniform_chance(self._values)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "keys": self._keys, "values": self._values}

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        B, N, K = len(numbers), self.config.sequence_length // 2 - 1, self._keys
        widths = [K, N, K, 1, N, 2 * N]
        for_map, for_keys, for_probe, for_sure, for_noise, for_ids = draws.of_rows(stream, numbers, widths)
        value_of = K + draws.below(for_map, self._values)  # B K
        keys = draws.below(for_keys, K)  # B N

        noisy = draws.unit(for_noise) < self.noise
        noisy[np.arange(N) == draws.below(for_sure, N + 1)] = False
        noisy[noisy.all(1), 0] = False

        seen = np.zeros((B, K), bool)
        rows, places = np.nonzero(~noisy)
        seen[rows, keys[rows, places]] = True
        probe = np.where(seen, draws.unit(for_probe), -1.0).argmax(1)[:, None]
        keys = np.concatenate([keys, probe], 1)  # B N+1
        pairs = np.stack([keys, np.take_along_axis(value_of, keys, 1)], 2)  # B N+1 2
        if self.noise:
            ids = K + self._values + draws.below(for_ids, self.noise_ids)
            pairs[:, :N] = np.where(noisy[..., None], ids.reshape(B, N, 2), pairs[:, :N])
        tokens = pairs.reshape(B, -1)
        if split == "train":
            return tokens[:, :-1].copy(), tokens[:, 1:].copy()
        noisy = np.concatenate([noisy, np.zeros((B, 1), bool)], 1)
        asked = ~noisy & _came_before(np.where(noisy, K, keys))
        targets = np.full((B, 2 * (N + 1)), IGNORE)
        targets[:, 1::2] = np.where(asked, pairs[..., 1], IGNORE)
        return tokens[:, :-1].copy(), targets[:, 1:].copy()


class NoisyRecallConfig(RecallConfig):
    vocab_size: int = Field(32, ge=4, le=1_000_000, description="Ids: keys, values, and the ids of noise")
    noise_vocab_size: int = Field(16, ge=1, le=1_000_000, description="Ids of noise, the uppermost")
    noise: float = Field(0.2, ge=0, lt=1, description="Share of pairs that are two ids of noise instead")


class NoisyRecall(InContextRecall):
    """In-context recall in which a pair may be two ids of noise, with probability `noise`.

    One place, drawn among all pairs, is never noise, and neither is the last, which asks. Should all others be noise
    (the place drawn was the last), the first is not: MAD's generator fails there.
    """

    name = "noisy_recall"
    title = "Noisy recall"
    summary = "Recall the values of keys that come again, between noise (MAD)"
    Config = NoisyRecallConfig
    config: NoisyRecallConfig

    @property
    def noise_ids(self) -> int:
        return self.config.noise_vocab_size

    @property
    def noise(self) -> float:
        return self.config.noise


def first_places(codes: NDArray) -> NDArray[np.int64]:
    """For each of the codes (B, N) the place in its row where that code comes first."""
    order = np.argsort(codes, axis=1, kind="stable")
    grouped = np.take_along_axis(codes, order, 1)
    place = np.arange(codes.shape[1])
    starts = np.ones(codes.shape, bool)
    starts[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    start = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, start, 1), 1)
    return first


def _came_before(codes: NDArray) -> NDArray[np.bool_]:
    return first_places(codes) < np.arange(codes.shape[1])

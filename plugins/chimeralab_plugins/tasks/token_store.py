"""Token ids on disk: one flat file a split, read by memory map."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chimeralab.errors import DataError


@dataclass(frozen=True)
class SplitFacts:
    documents: int
    tokens: int
    bytes: int
    unigram_bits_per_byte: float  # of the ids' own frequencies: what a model reaches that ignores order
    most_common: float  # share of the most frequent id


def id_type(vocab_size: int) -> np.dtype:
    """The smallest of uint8, uint16 and uint32 that holds every id."""
    return np.dtype(np.uint8 if vocab_size <= 256 else np.uint16 if vocab_size <= 65_536 else np.uint32)


class TokenStore:
    """The two splits of one tokenised corpus, in a folder of its own: train.bin, validation.bin, facts.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            facts = json.loads((folder / "facts.json").read_text())
            self.facts = {split: SplitFacts(**values) for split, values in facts["splits"].items()}
            self.dtype = np.dtype(facts["dtype"])
            self.notes: dict[str, str] = facts["notes"]
            self._tokens = {split: self._open(split) for split in self.facts}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the tokenised corpus is damaged: {error}",
                place=str(folder),
                remedy="Delete this folder; it is made again from the source",
            ) from error

    def __getitem__(self, split: str) -> NDArray:
        return self._tokens[split]

    def windows(self, split: str, starts: NDArray, length: int) -> NDArray[np.int64]:
        """(B, length) ids from these places on."""
        return self._tokens[split][starts[:, None] + np.arange(length)].astype(np.int64)

    def _open(self, split: str) -> NDArray:
        path = self.folder / f"{split}.bin"
        wanted = self.facts[split].tokens * self.dtype.itemsize
        if path.stat().st_size != wanted:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {wanted}")
        if wanted == 0:
            return np.empty(0, self.dtype)
        return np.memmap(path, self.dtype, mode="r")


class SplitWriter:
    """Appends documents to one split and counts what its facts need."""

    def __init__(self, path: Path, byte_lengths: NDArray[np.int64], dtype: np.dtype) -> None:
        self._file = path.open("wb")
        self._lengths, self._dtype = byte_lengths, dtype
        self._counts = np.zeros(len(byte_lengths), np.int64)
        self._documents = 0

    def append(self, tokens: NDArray) -> None:
        self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._counts += np.bincount(tokens, minlength=len(self._counts))
        self._documents += 1

    def close(self) -> SplitFacts:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        tokens = int(self._counts.sum())
        size = int((self._counts * self._lengths).sum())
        share = self._counts[self._counts > 0] / max(tokens, 1)
        entropy = -float((share * np.log2(share)).sum()) * tokens  # bits
        return SplitFacts(self._documents, tokens, size, entropy / max(size, 1), float(share.max(initial=0.0)))


def write_facts(folder: Path, dtype: np.dtype, splits: dict[str, SplitFacts], notes: dict[str, str]) -> None:
    facts = {
        "dtype": dtype.name,
        "splits": {name: asdict(split) for name, split in splits.items()},
        "notes": notes,
    }
    with (folder / "facts.json").open("w") as file:
        json.dump(facts, file, indent=2)
        file.flush()
        os.fsync(file.fileno())

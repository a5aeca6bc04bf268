"""Text to token ids and back, exactly: bytes, characters, or byte-level BPE trained on the spot.

Documents are joined by `SEPARATOR`, a NUL byte, which all tokenizers keep as one token of one byte. So bits per
byte mean the same for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SEPARATOR = b"\0"
_PIECE = 1 << 18  # characters that BPE is given at once; a longer document is cut at a line's end


class Tokenizer(Protocol):
    def encode(self, documents: Sequence[bytes]) -> Iterator[NDArray]:
        """Token ids of each document, the separator at its end included."""

    def decode(self, tokens: NDArray) -> str:
        """Text of any ids; bytes that are not UTF-8 show as U+FFFD."""

    def byte_lengths(self) -> NDArray[np.int64]:
        """How many bytes of text each id stands for."""


class Bytes:
    """256 ids, one for each byte."""

    def encode(self, documents: Sequence[bytes]) -> Iterator[NDArray]:
        for document in documents:
            yield np.frombuffer(document + SEPARATOR, np.uint8)

    def decode(self, tokens: NDArray) -> str:
        return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def byte_lengths(self) -> NDArray[np.int64]:
        return np.ones(256, np.int64)


class Characters:
    """An id for each character of the text, in the order of their code points, as character models have them.

    Bytes that are not UTF-8 are read as U+FFFD.
    """

    def __init__(self, path: Path) -> None:
        self._characters: list[str] = json.loads(path.read_text())
        points = np.array([ord(c) for c in self._characters], np.uint32)
        self._ids = np.zeros(points.max() + 1, np.uint32)
        self._ids[points] = np.arange(len(points))

    @staticmethod
    def learn(documents: Iterable[bytes], path: Path) -> int:
        """Write the characters of all documents, and the separator, as JSON; returns how many there are."""
        found = {SEPARATOR.decode()}
        for document in documents:
            found.update(document.decode("utf-8", errors="replace"))
        path.write_text(json.dumps(sorted(found)))
        return len(found)

    def encode(self, documents: Sequence[bytes]) -> Iterator[NDArray]:
        for document in documents:
            text = (document + SEPARATOR).decode("utf-8", errors="replace")
            points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            yield self._ids[np.minimum(points, len(self._ids) - 1)]  # a character that is not known: whatever id

    def decode(self, tokens: NDArray) -> str:
        return "".join(self._characters[t] if t < len(self._characters) else "\ufffd" for t in tokens.tolist())

    def byte_lengths(self) -> NDArray[np.int64]:
        return np.array([len(c.encode()) for c in self._characters], np.int64)


class Bpe:
    """Byte-level BPE (GPT-2's way of splitting words). Bytes that are not UTF-8 are read as U+FFFD."""

    def __init__(self, path: Path) -> None:
        import tokenizers

        self._bpe = tokenizers.Tokenizer.from_file(str(path))

    @staticmethod
    def train(documents: Iterable[bytes], vocab_size: int, path: Path) -> None:
        """Learn at most `vocab_size` ids, the 256 bytes and the separator among them, and save them as JSON."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[SEPARATOR.decode()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = (piece for document in documents for piece in _pieces(document))
        bpe.train_from_iterator(texts, trainer)
        bpe.save(str(path))

    def encode(self, documents: Sequence[bytes]) -> Iterator[NDArray]:
        pieces = [_pieces(document + SEPARATOR) for document in documents]
        encoded = iter(self._bpe.encode_batch([piece for cut in pieces for piece in cut]))
        for cut in pieces:
            yield np.concatenate([np.array(next(encoded).ids, np.uint32) for _ in cut])

    def decode(self, tokens: NDArray) -> str:
        return self._bpe.decode(tokens.tolist(), skip_special_tokens=False)

    def byte_lengths(self) -> NDArray[np.int64]:
        # In byte-level BPE every character of a token's name stands for one byte.
        names = (self._bpe.id_to_token(i) for i in range(self._bpe.get_vocab_size()))
        return np.array([len(name or "") for name in names], np.int64)


def _pieces(document: bytes) -> list[str]:
    text = document.decode("utf-8", errors="replace")
    pieces, start = [], 0
    while len(text) - start > _PIECE:
        end = text.rfind("\n", start, start + _PIECE) + 1 or start + _PIECE
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]

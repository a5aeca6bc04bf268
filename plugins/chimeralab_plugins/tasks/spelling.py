"""Sequences put together from pieces of various length: words, numbers, questions and their answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chimeralab.contracts import IGNORE

NOTHING = -1
"""Stands in an array of pieces past the end of the shorter ones."""

Piece = NDArray | Sequence[int] | int
"""Tokens (B, W) of each sequence, or (W,) or one that are the same in all; a `NOTHING` is left out."""


def spelled(words: Sequence[str], alphabet: str) -> NDArray[np.int64]:
    """The words' letters by their places in `alphabet`, (words, longest), then `NOTHING`."""
    table = np.full((len(words), max(map(len, words))), NOTHING)
    for row, word in zip(table, words, strict=True):
        row[: len(word)] = [alphabet.index(letter) for letter in word]
    return table


def packed(pieces: NDArray) -> NDArray:
    """The same pieces (…, W), each `NOTHING` moved to the end."""
    return np.take_along_axis(pieces, np.argsort(pieces == NOTHING, axis=-1, kind="stable"), -1)


def joined(
    pieces: Sequence[tuple[Piece, bool | NDArray]], B: int, length: int, padding: int
) -> tuple[NDArray, NDArray]:
    """Inputs and targets, (B, length), of next-token prediction along the pieces, one after another.

    A piece comes with whether its tokens are asked for, or with (B, 1) of that. What is too long is cut, what is too
    short is padded, uncounted.
    """
    shown = [np.atleast_1d(np.asarray(piece)) for piece, _ in pieces]
    tokens = np.concatenate([np.broadcast_to(piece, (B, piece.shape[-1])) for piece in shown], 1)
    flags = [np.broadcast_to(asked, (B, piece.shape[-1])) for piece, (_, asked) in zip(shown, pieces, strict=True)]
    asked = np.concatenate(flags, 1)
    there = tokens != NOTHING
    place = np.cumsum(there, 1) - 1
    there &= place <= length
    rows, columns = np.nonzero(there)
    whole = np.full((B, length + 1), padding)
    whole[rows, place[rows, columns]] = tokens[rows, columns]
    targets = np.full((B, length + 1), IGNORE)
    rows, columns = np.nonzero(there & asked)
    targets[rows, place[rows, columns]] = tokens[rows, columns]
    return whole[:, :-1].copy(), targets[:, 1:].copy()

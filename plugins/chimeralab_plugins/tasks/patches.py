"""Pictures as sequences of patches, and back."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["rows", "z"]


def count(height: int, width: int, patch: int) -> int:
    return (height // patch) * (width // patch)


def cut(pixels: NDArray, patch: int, order: Order) -> NDArray:  # N H W C -> N T F, F = patch · patch · C
    """One row a patch of `patch` · `patch` pixels; its numbers go row by row, the colours of a pixel side by side."""
    N, H, W, C = pixels.shape
    grid = pixels.reshape(N, H // patch, patch, W // patch, patch, C).swapaxes(2, 3)
    return grid.reshape(N, -1, patch * patch * C)[:, places(H // patch, W // patch, order)]


def join(rows: NDArray, height: int, width: int, patch: int, order: Order) -> NDArray:  # N T F -> N H W C
    """The way back from `cut`."""
    N, _, F = rows.shape
    straight = np.empty_like(rows)
    straight[:, places(height // patch, width // patch, order)] = rows
    grid = straight.reshape(N, height // patch, width // patch, patch, patch, F // patch**2).swapaxes(2, 3)
    return grid.reshape(N, height, width, -1)


def places(rows: int, columns: int, order: Order) -> NDArray[np.int64]:
    """Where in the grid, counted row by row, what comes at each place of the sequence stands.

    Z-order takes bits of column and row by turns, so that squares stay together; the grid is a square then, and its
    side a power of two.
    """
    straight = np.arange(rows * columns)
    if order == "rows":
        return straight
    bits = (rows - 1).bit_length()
    column, row = (sum((straight >> (2 * bit + axis) & 1) << bit for bit in range(bits)) for axis in (0, 1))
    return row * columns + column

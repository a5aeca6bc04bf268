"""Pictures as PNG files, in memory."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def sheet(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:  # N H W C -> rows·(H+1)-1 …
    """Pictures side by side, a pixel of black between them."""
    N, H, W, C = pictures.shape
    rows = -(-N // columns)
    cells = np.zeros((rows * columns, H + 1, W + 1, C), np.uint8)
    cells[:N, :H, :W] = pictures
    grid = cells.reshape(rows, columns, H + 1, W + 1, C).swapaxes(1, 2)
    return grid.reshape(rows * (H + 1), columns * (W + 1), C)[:-1, :-1]


def encode(pixels: NDArray[np.uint8]) -> bytes:  # H W C, C of 1 or 3
    """PNG (ISO/IEC 15948): header, one compressed block of unfiltered rows, end."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

"""Where text comes from: the standard library, a file, a folder, Parquet or JSON lines, as a stream of documents."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chimeralab.errors import DataError

STDLIB = "stdlib"
PLACE = "task.options.source"

# Test suites, and the parts that Linux distributions and slim images leave out: without them the corpus is nearly
# the same wherever one Python version is installed.
_NOT_STDLIB = {
    *("test", "tests", "idle_test", "idlelib", "tkinter", "turtledemo", "ensurepip", "venv", "distutils"),
    *("lib2to3", "site-packages", "dist-packages", "__pycache__"),
}
_ALL = 1 << 62  # bytes


@dataclass(frozen=True)
class Document:
    name: str  # relative to the source, the same on every machine
    data: bytes
    split: Literal["train", "validation"] | None = None  # where the source says so itself


class Corpus:
    """The documents of a source. A file is one document, but for .parquet and .jsonl, where each record is one.

    In a folder, hidden files and folders and files that are not text (a NUL among their first 8 KiB) are left out.
    Files come in an order drawn from their names, so that `max_bytes` takes a sample and not the first letters
    of the alphabet.
    """

    cut_by_itself = False

    def __init__(self, source: str, column: str = "text", max_bytes: int | None = None) -> None:
        self.source, self.column, self.max_bytes = source, column, max_bytes
        self.root = Path(sysconfig.get_paths()["stdlib"]) if source == STDLIB else Path(source)

    @property
    def title(self) -> str:
        if self.source != STDLIB:
            return self.source
        return f"standard library of Python {sys.version_info.major}.{sys.version_info.minor}"

    def check(self, needed: int) -> None:
        """Raise `DataError` unless files of at least `needed` bytes are there and the column is in the first."""
        if not self.root.exists():
            raise DataError(f"{self.source} does not exist", place=PLACE, remedy="Give a file or a folder")
        first, size = None, 0
        for path in self._files():
            if not _readable(path):
                raise DataError(f"{path} cannot be read", place=PLACE, remedy="Check its permissions")
            first = first or path
            size += path.stat().st_size
            if size >= needed:
                break
        if first is None:
            raise DataError(f"{self.source} holds no text files", place=PLACE, remedy="Give another folder")
        if size < needed:
            raise DataError(
                f"{self.source} has {size} bytes, fewer than the {needed} of a window in either split",
                place=PLACE,
                remedy="Add text or lower sequence_length",
            )
        next(self._records(first, limit=1), None)

    def identity(self) -> list[tuple[str, int, int]]:
        """Name, size and modification time (ns) of every file: what a cache is keyed by."""
        stats = [(self._name(path), path.stat()) for path in sorted(self._files())]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]

    def documents(self) -> Iterator[Document]:
        """Every document that is not empty, up to `max_bytes` in all.

        Raises:
            DataError: a file cannot be read or has no such column.
        """
        left = _ALL if self.max_bytes is None else self.max_bytes
        for path in sorted(self._files(), key=lambda path: fraction(self._name(path), 0)):
            for document in self._records(path, left):
                if left <= 0:
                    return
                data = document.data[: character_start(document.data, left)]
                if data:
                    yield Document(document.name, data)
                left -= len(document.data)

    def _files(self) -> Iterator[Path]:
        if not self.root.is_dir():
            yield self.root
            return
        stdlib = self.source == STDLIB
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if not (f in _NOT_STDLIB if stdlib else f.startswith("."))]
            for name in names:
                path = Path(folder, name)
                if stdlib:
                    # _sysconfigdata holds the compiler flags of one build.
                    wanted = name.endswith(".py") and not name.startswith("_sysconfigdata")
                else:
                    wanted = not name.startswith(".") and path.is_file() and not _binary(path)
                if wanted:
                    yield path

    def _name(self, path: Path) -> str:
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    def _records(self, path: Path, limit: int) -> Iterator[Document]:
        """Documents of one file; of a text file no more is read than a cut at `limit` bytes has to see."""
        name = self._name(path)
        try:
            if path.suffix == ".parquet":
                yield from self._parquet(path, name)
            elif path.suffix == ".jsonl":
                yield from self._jsonl(path, name)
            else:
                with path.open("rb") as file:
                    yield Document(name, file.read(min(limit, path.stat().st_size) + 1))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}", place=PLACE) from error

    def _jsonl(self, path: Path, name: str) -> Iterator[Document]:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    text = json.loads(line)[self.column]
                except (ValueError, TypeError):
                    raise DataError(f"{path} line {number} is not a JSON object", place=PLACE) from None
                except KeyError:
                    raise self._no_column(f"{path} line {number}", sorted(json.loads(line))) from None
                if not isinstance(text, str):
                    raise DataError(f"{path} line {number}: {self.column!r} is not text", place="task.options.column")
                yield Document(f"{name}#{number}", text.encode("utf-8", errors="replace"))

    def _parquet(self, path: Path, name: str) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise DataError(f"{path} is not a Parquet file: {error}", place=PLACE) from error
        with table:
            if self.column not in table.schema_arrow.names:
                raise self._no_column(str(path), table.schema_arrow.names)
            if table.schema_arrow.field(self.column).type not in (pa.string(), pa.large_string()):
                raise DataError(f"{path}: {self.column!r} is not text", place="task.options.column")
            number = 0
            for rows in table.iter_batches(batch_size=1024, columns=[self.column]):
                for text in rows.column(0).to_pylist():
                    number += 1
                    if text is not None:
                        yield Document(f"{name}#{number}", text.encode())

    def _no_column(self, where: str, known: list[str]) -> DataError:
        return DataError(
            f"{where} has no column {self.column!r}",
            place="task.options.column",
            remedy=f"It has: {', '.join(known) or 'none'}",
        )


def fraction(name: str, seed: int) -> float:
    """A number in [0, 1) drawn from a document's name: below the validation fraction, it is validated on."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def split_of(
    documents: Iterator[Document], share: float, seed: int, cut: bool
) -> Iterator[tuple[Literal["train", "validation"], bytes]]:
    """Each document with its split. With `cut`, every document is in both: its last `share` is validated on."""
    for document in documents:
        if document.split is not None:
            yield document.split, document.data
        elif cut:
            end = character_start(document.data, round(len(document.data) * (1 - share)))
            if end > 0:
                yield "train", document.data[:end]
            if end < len(document.data):
                yield "validation", document.data[end:]
        else:
            yield "validation" if fraction(document.name, seed) < share else "train", document.data


def character_start(data: bytes, place: int) -> int:
    """The nearest place at or before this one where UTF-8 text can be cut."""
    place = min(place, len(data))
    while 0 < place < len(data) and data[place] & 0xC0 == 0x80:
        place -= 1
    return place


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _binary(path: Path) -> bool:
    if path.suffix == ".parquet":
        return False
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(8192)
    except OSError:
        return False  # named as unreadable later, not passed over in silence

"""Text from the Hugging Face hub: `hf:owner/name`, or `hf:owner/name:configuration`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from chimeralab.errors import DataError
from chimeralab_plugins.tasks.corpus import PLACE, Document, character_start

HUB = "hf:"


class HubCorpus:
    """The rows of a dataset's `train` split, and of its `validation` split where it has one; `test` is not touched.

    `datasets` downloads it once, into its own cache. A folder that `datasets` can load stands for a name too.
    """

    def __init__(self, source: str, column: str, max_bytes: int | None, validation_fraction: float) -> None:
        self.title, self.column, self.max_bytes = source, column, max_bytes
        self.validation_fraction = validation_fraction
        name, _, configuration = source.removeprefix(HUB).partition(":")
        self._named: dict[str, Any] = {"path": name, "name": configuration or None}

    @cached_property
    def cut_by_itself(self) -> bool:
        """Whether the dataset says what to validate on."""
        return "validation" in self._streams

    def check(self, needed: int) -> None:
        """Raise `DataError` unless the dataset can be reached and its rows have the column."""
        if find_spec("datasets") is None:
            raise DataError(
                f"{self.title} needs the package datasets",
                place=PLACE,
                remedy="pip install 'chimeralab[datasets]', or give a file or a folder",
            )
        if "train" not in self._streams:
            has = ", ".join(self._streams)
            raise DataError(f"{self.title} has no train split", place=PLACE, remedy=f"It has: {has}")
        row = next(iter(self._streams["train"]), None)
        if row is None:
            raise DataError(f"{self.title} has no rows", place=PLACE, remedy="Give another dataset")
        if not isinstance(row.get(self.column), str):
            texts = ", ".join(sorted(name for name, value in row.items() if isinstance(value, str)))
            raise DataError(
                f"{self.title} has no column of text {self.column!r}",
                place="task.options.column",
                remedy=f"Its columns of text: {texts or 'none'}",
            )

    def identity(self) -> list[tuple[str, int, int]]:
        """Changes when the dataset's files do."""
        import datasets

        with _spoken(self.title):
            return [(datasets.load_dataset_builder(**self._named).hash or "", 0, 0)]

    def documents(self) -> Iterator[Document]:
        """Every row that is not empty. `max_bytes` is shared out to the splits as `validation_fraction` says."""
        import datasets

        splits = ("train", "validation") if self.cut_by_itself else ("train",)
        for split in splits:
            with _spoken(self.title):
                rows = datasets.load_dataset(**self._named, split=split)
            share = {"train": 1 - self.validation_fraction, "validation": self.validation_fraction}[split]
            left = (1 << 62) if self.max_bytes is None else round(self.max_bytes * (share if self.cut_by_itself else 1))
            for number, text in enumerate(rows[self.column], 1):
                if left <= 0:
                    break
                data = (text or "").encode("utf-8", errors="replace")
                data = data[: character_start(data, left)]
                if data:
                    yield Document(f"{split}#{number}", data, split if self.cut_by_itself else None)
                left -= len(data)

    @cached_property
    def _streams(self) -> dict[str, Any]:
        """The splits, read row by row: nothing is downloaded but what is looked at."""
        import datasets

        with _spoken(self.title):
            return dict(datasets.load_dataset(**self._named, streaming=True))


@contextmanager
def _spoken(title: str) -> Iterator[None]:
    """Turns what `datasets` raises into an error that names the source, and keeps its progress bars to itself."""
    from datasets import utils

    utils.logging.set_verbosity_error()
    utils.logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{title} cannot be loaded: {what}",
            place=PLACE,
            remedy="Check its name, its configuration and the network, or give a file or a folder",
        ) from error

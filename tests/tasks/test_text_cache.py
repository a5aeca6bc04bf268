"""A corpus is prepared once: by many processes, after a failure, from a damaged cache."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from texts import poem, prepared

from chimeralab.errors import DataError


def prepare_and_read(source: str, cache: str) -> list[int]:
    return prepared(source, Path(cache), tokenizer="bpe", vocab_size=300).batch("train", 0, 4).inputs.flatten().tolist()


def test_four_processes_may_prepare_at_once(folder: Path, tmp_path: Path) -> None:
    arguments = [(str(folder), str(tmp_path / "cache"))] * 4
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(prepare_and_read, arguments)
    assert found == [found[0]] * 4
    assert len(os.listdir(tmp_path / "cache" / "text")) == 1  # no drafts are left


def test_a_second_prepare_reads_the_cache_and_a_changed_file_does_not(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    task = prepared(folder, tmp_path / "cache")
    task.prepare(tmp_path / "cache", said.append)
    assert said == []
    (folder / "new.txt").write_text("new")
    task.prepare(tmp_path / "cache", said.append)
    assert said


def test_a_prepare_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps({"text": poem(1)}) + "\nnot json\n")
    with pytest.raises(DataError, match="line 2"):
        prepared(path, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache" / "text") == []


def test_a_damaged_cache_is_named(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache")
    (held,) = (tmp_path / "cache" / "text").iterdir()
    os.truncate(held / "train.bin", 10)
    with pytest.raises(DataError, match="damaged") as error:
        task.prepare(tmp_path / "cache")
    assert error.value.place == str(held)

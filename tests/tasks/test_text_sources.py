"""Where text comes from: files, folders, records and datasets; how it is split; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from texts import documents, poem, prepared, split_text

from chimeralab.errors import DataError, LabError
from chimeralab_plugins.tasks.text import Text, TextConfig


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe"])
def test_a_folder_is_split_by_document_and_nothing_is_lost(folder: Path, tmp_path: Path, tokenizer: str) -> None:
    found = documents(prepared(folder, tmp_path / "cache", tokenizer=tokenizer, vocab_size=300))
    assert sorted(found["train"] + found["validation"]) == sorted(poem(n) for n in range(60))
    assert 2 <= len(found["validation"]) <= 12


def test_the_split_follows_names_and_seed_and_not_the_place_of_the_folder(folder: Path, tmp_path: Path) -> None:
    here = documents(prepared(folder, tmp_path / "a"))
    moved = folder.rename(tmp_path / "moved")
    assert documents(prepared(moved, tmp_path / "b")) == here
    assert documents(prepared(moved, tmp_path / "b", split_seed=1))["validation"] != here["validation"]


def test_a_single_file_is_cut_and_its_end_validated_on(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(poem(1, 8000))
    task = prepared(path, tmp_path / "cache", validation_fraction=0.25)
    found = documents(task)
    (start,), (end,) = found["train"], found["validation"]
    assert start + end == poem(1, 8000)
    assert len(end.encode()) / path.stat().st_size == pytest.approx(0.25, abs=0.01)
    assert task.describe()["split"] == "end of each document"


def test_a_few_documents_are_each_cut(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "few").mkdir(exist_ok=True)
        (tmp_path / "few" / name).write_text(poem(ord(name), 2000))
    found = documents(prepared(tmp_path / "few", tmp_path / "cache", validation_fraction=0.01))
    assert len(found["train"]) == len(found["validation"]) == 3


def test_hidden_and_binary_files_are_left_out(folder: Path, tmp_path: Path) -> None:
    before = documents(prepared(folder, tmp_path / "cache"))
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    (folder / ".hidden").write_text("hidden")
    (folder / "image.png").write_bytes(b"\x89PNG\0\0binary")
    assert documents(prepared(folder, tmp_path / "cache")) == before


def test_json_lines_give_a_document_a_line(tmp_path: Path) -> None:
    path = tmp_path / "poems.jsonl"
    lines = [json.dumps({"id": n, "body": poem(n)}) for n in range(60)]
    path.write_text("\n".join(lines) + "\n\n" + json.dumps({"body": ""}) + "\n")
    found = documents(prepared(path, tmp_path / "cache", column="body"))
    assert sorted(found["train"] + found["validation"]) == sorted(poem(n) for n in range(60))


def test_parquet_gives_a_document_a_row(tmp_path: Path) -> None:
    path = tmp_path / "poems.parquet"
    pq.write_table(pa.table({"text": [*(poem(n) for n in range(60)), None], "id": list(range(61))}), path)
    found = documents(prepared(path, tmp_path / "cache"))
    assert sorted(found["train"] + found["validation"]) == sorted(poem(n) for n in range(60))


def test_max_bytes_takes_so_much_and_cuts_no_character(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("数" * 3000)
    task = prepared(path, tmp_path / "cache", max_bytes=1000)
    text = "".join(documents(task)["train"] + documents(task)["validation"])
    assert text == "数" * 333


def test_the_standard_library_needs_no_download(tmp_path: Path) -> None:
    task = prepared("stdlib", tmp_path, max_bytes=2_000_000)
    facts = task.describe()
    assert facts["train bytes"] + facts["validation bytes"] == pytest.approx(2_000_000, rel=0.01)
    assert "import" in split_text(task, "train")


def test_a_relative_source_is_made_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert TextConfig(source="poems").source == str(folder)
    assert TextConfig().source == "stdlib"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_is_wrong_with_a_source_is_said_before_anything_runs(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"body": ["words " * 20], "text": [1]}), table)
    record = json.dumps({"body": "words " * 20})
    source, column = "task.options.source", "task.options.column"
    cases: list[tuple[Path, dict[str, object], str, str]] = [
        (tmp_path / "none", {}, source, "does not exist"),
        (empty, {}, source, "no text files"),
        (_write(tmp_path / "short.txt", "short"), {}, source, "fewer than"),
        (_write(tmp_path / "list.jsonl", "[1, 2]" * 20), {}, source, "not a JSON object"),
        (_write(tmp_path / "r.jsonl", record), {}, column, "It has: body"),
        (_write(tmp_path / "n.jsonl", json.dumps({"text": 1, "pad": " " * 99})), {}, column, "not text"),
        (table, {"column": "words"}, column, "It has: body, text"),
        (table, {}, column, "not text"),
        (_write(tmp_path / "not.parquet", "words " * 20), {}, source, "not a Parquet file"),
        (_write(tmp_path / "long.txt", "words " * 20), {"max_bytes": 9}, "task.options.max_bytes", "Raise max_bytes"),
    ]
    for path, options, place, words in cases:
        with pytest.raises(LabError) as error:
            Text(TextConfig(source=str(path), **{"sequence_length": 16, **options})).check()
        assert (error.value.place, words in str(error.value)) == (place, True), path


def test_a_corpus_of_empty_records_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "r.jsonl", json.dumps({"text": "", "pad": " " * 99}) + "\n")
    with pytest.raises(DataError, match="empty"):
        prepared(path, tmp_path / "cache")


def test_a_split_shorter_than_a_window_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation split") as error:
        prepared(folder, tmp_path / "cache", sequence_length=8000)
    assert error.value.place == "task.options.sequence_length"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets` loads by its name, as it does a dataset of the hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "downloads")
    root = tmp_path / "poems"
    (root / "data").mkdir(parents=True)
    for split, numbers in {"train": range(12), "validation": range(20, 23), "test": range(30, 33)}.items():
        table = pa.table({"poem": [poem(n) for n in numbers], "year": list(numbers)})
        pq.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def test_a_dataset_of_the_hub_keeps_its_own_split(dataset: Path, tmp_path: Path) -> None:
    found = documents(prepared(f"hf:{dataset}", tmp_path / "cache", column="poem"))
    assert found == {"train": [poem(n) for n in range(12)], "validation": [poem(n) for n in range(20, 23)]}


def test_a_dataset_without_a_validation_split_is_split_by_row(dataset: Path, tmp_path: Path) -> None:
    (dataset / "data" / "validation-00000-of-00001.parquet").unlink()
    found = documents(prepared(f"hf:{dataset}", tmp_path / "cache", column="poem", validation_fraction=0.3))
    assert sorted(found["train"] + found["validation"]) == sorted(poem(n) for n in range(12))
    assert found["train"]
    assert found["validation"]


def test_max_bytes_is_shared_out_to_the_splits_of_a_dataset(dataset: Path, tmp_path: Path) -> None:
    found = documents(prepared(f"hf:{dataset}", tmp_path / "cache", column="poem", max_bytes=1000))
    sizes = {split: sum(len(text.encode()) for text in texts) for split, texts in found.items()}
    assert 896 <= sizes["train"] <= 900
    assert 96 <= sizes["validation"] <= 100


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("hf:{}", {}, r"task\.options\.column: .* has no column of text 'text'. Its columns of text: poem"),
        ("hf:{}", {"column": "year"}, "has no column of text 'year'"),
        ("hf:{}/nowhere", {}, r"task\.options\.source: .*nowhere cannot be loaded"),
    ],
)
def test_a_dataset_that_cannot_serve_is_refused(dataset: Path, name: str, options: dict, said: str) -> None:
    task = Text(TextConfig(source=name.format(dataset), **options))
    with pytest.raises(DataError, match=said):
        task.check()

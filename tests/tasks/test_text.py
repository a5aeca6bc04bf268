from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from chimeralab.contracts import IGNORE, Evaluation
from chimeralab.errors import DataError, LabError, SpecError
from chimeralab_plugins.tasks.text import Text, TextConfig
from chimeralab_plugins.tasks.tokenizer import Bpe

WORDS = ["naïve ", "façade ", "the ", "cat ", "→ ", "\n", "def f(x):\n    return x\n", "数 "]


def poem(number: int, length: int = 400) -> str:
    pick = np.random.default_rng(number)
    return "".join(WORDS[i] for i in pick.integers(len(WORDS), size=length // 4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "poems"
    for number in range(60):
        path = root / f"part{number % 3}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(poem(number))
    return root


def prepared(source: Path | str, cache: Path, **options: object) -> Text:
    task = Text(TextConfig(source=str(source), **{"sequence_length": 16, **options}))
    task.check()
    task.prepare(cache)
    return task


def split_text(task: Text, split: str) -> str:
    return task.decode(torch.from_numpy(np.array(task._ready()[0][split]).astype(np.int64)))


def documents(task: Text) -> dict[str, list[str]]:
    return {split: split_text(task, split).split("\0")[:-1] for split in ("train", "validation")}


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


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe"])
def test_facts_agree_with_a_direct_count(folder: Path, tmp_path: Path, tokenizer: str) -> None:
    task = prepared(folder, tmp_path / "cache", tokenizer=tokenizer, vocab_size=300)
    facts = task.describe()
    for split, texts in documents(task).items():
        assert facts[f"{split} documents"] == len(texts)
        assert facts[f"{split} bytes"] == sum(len(text.encode()) + 1 for text in texts)
    tokens = task._ready()[0]["validation"].tolist()
    bits = -sum(n * math.log2(n / len(tokens)) for n in Counter(tokens).values())
    assert facts["unigram bits per byte"] == pytest.approx(bits / facts["validation bytes"])
    assert facts["validation tokens"] == len(tokens)


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe"])
def test_guessing_by_token_frequency_scores_the_stated_chance(folder: Path, tmp_path: Path, tokenizer: str) -> None:
    task = prepared(folder, tmp_path / "cache", tokenizer=tokenizer, vocab_size=300)
    tokens = task._ready()[0]["validation"]
    frequency = np.bincount(tokens, minlength=task.vocab_size) / len(tokens)
    logits = torch.from_numpy(np.log(frequency + 1e-30)).expand(4, 16, -1)
    steps = range(task.evaluation_steps(4))
    total = sum((task.measure(logits, task.batch("validation", i, 4)) for i in steps), Evaluation())
    found, chance = task.metrics(total), task.chance()
    for name in ("bits_per_byte", "loss", "accuracy"):  # the first token and the tail are no targets
        assert found[name] == pytest.approx(chance[name], rel=0.03)


def test_bits_per_byte_count_the_bytes_of_the_targets(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", tokenizer="bpe", vocab_size=300)
    batch = task.batch("validation", 0, 3)
    batch.targets[0, :5] = IGNORE
    total = task.measure(torch.zeros(3, 16, 300), batch)
    # Decoding a token that is half a character gives U+FFFD, so its name is counted: a character a byte.
    pieces = [task._ready()[1]._bpe.id_to_token(int(i)) for row in batch.targets for i in row if i != IGNORE]
    assert total.sums["bytes"] == sum(len(piece) for piece in pieces)
    assert task.metrics(total)["bits_per_byte"] == pytest.approx(total.targets * math.log2(300) / total.sums["bytes"])


def test_targets_are_the_inputs_one_token_on(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache")
    for split in ("train", "validation"):
        batch = task.batch(split, 1, 4)
        assert batch.inputs.shape == batch.targets.shape == (4, 16)
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_training_windows_differ_by_seed_step_and_rank(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache")
    draws = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    batches = [task.batch("train", step, 8, seed=seed, rank=rank).inputs for step, seed, rank in draws]
    assert all(not torch.equal(batches[0], other) for other in batches[1:])


def test_train_tokens_take_the_first_of_them_and_leave_validation_alone(folder: Path, tmp_path: Path) -> None:
    few, all_ = (prepared(folder, tmp_path / "cache", train_tokens=n) for n in (20, None))
    first = all_._ready()[0]["train"][:20].tolist()
    windows = {tuple(first[start : start + 16]) for start in range(4)}
    drawn = {tuple(row) for step in range(20) for row in few.batch("train", step, 8).inputs.tolist()}
    assert drawn == windows
    assert torch.equal(few.batch("validation", 0, 4).inputs, all_.batch("validation", 0, 4).inputs)
    with pytest.raises(SpecError, match=r"task\.options\.train_tokens: 16 tokens hold no window of 16"):
        prepared(folder, tmp_path / "cache", train_tokens=16)


def test_training_windows_reach_both_ends_of_the_split(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes(bytes(range(1, 101)))
    task = prepared(path, tmp_path / "cache", validation_fraction=0.5, sequence_length=10)
    starts = {int(row[0]) for step in range(50) for row in task.batch("train", step, 16).inputs}
    tokens = task._ready()[0]["train"]
    assert starts == set(tokens[:-10].tolist())


def test_validation_counts_every_target_once_whatever_the_batch_size(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache")
    tokens = torch.from_numpy(np.array(task._ready()[0]["validation"]).astype(np.int64))
    whole = tokens[1 : 1 + (len(tokens) - 1) // 16 * 16]
    for size in (1, 7, 32):
        steps = task.evaluation_steps(size)
        targets = torch.cat([task.batch("validation", i, size, seed=i, rank=i).targets for i in range(steps)])
        assert torch.equal(targets[targets != IGNORE], whole)
        assert torch.equal(task.batch("validation", steps, size).targets, task.batch("validation", 0, size).targets)


def test_validation_tokens_bound_what_is_evaluated_and_spread_it(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", validation_tokens=100)
    starts = task._starts("validation")
    assert len(starts) == 6
    assert starts[-1] > len(task._ready()[0]["validation"]) * 0.7
    assert (np.diff(starts) >= 16).all()


def test_another_process_gives_the_same_batch(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache")
    code = (
        "from pathlib import Path\nfrom chimeralab_plugins.tasks.text import Text, TextConfig\n"
        f"t = Text(TextConfig(**{task.config.model_dump()!r}))\nt.prepare(Path({str(tmp_path / 'cache')!r}))\n"
        "print(t.batch('train', 7, 4, seed=3, rank=2).inputs.tolist())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(task.batch("train", 7, 4, seed=3, rank=2).inputs.tolist())


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


def test_bpe_learns_the_same_tokens_twice(folder: Path, tmp_path: Path) -> None:
    texts = [path.read_bytes() for path in sorted(folder.rglob("*.txt"))]
    for name in ("a", "b"):
        Bpe.train(texts, 320, tmp_path / name)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


def test_bpe_keeps_a_long_text_whole(folder: Path, tmp_path: Path) -> None:
    Bpe.train([path.read_bytes() for path in folder.rglob("*.txt")], 300, tmp_path / "bpe.json")
    bpe = Bpe(tmp_path / "bpe.json")
    for text in ("数x " * 200_000, "a\n\n  b" * 100_000, ""):
        (tokens,) = bpe.encode([text.encode()])
        assert bpe.decode(tokens) == text + "\0"
        assert bpe.byte_lengths()[tokens].sum() == len(text.encode()) + 1


def test_ids_that_bpe_did_not_learn_stand_for_no_text(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", tokenizer="bpe", vocab_size=5000)
    assert task.vocab_size == 5000
    assert task.decode(torch.tensor([4999])) == ""
    batch = task.batch("train", 0, 2)
    assert task.measure(torch.zeros(2, 16, 5000), batch).sums["bytes"] > 0


def test_prompts_are_pieces_of_the_validation_split(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", sequence_length=48)
    text = bytes(task._ready()[0]["validation"])
    prompts = task.prompts()
    assert len(prompts) == 3
    assert all(len(prompt) == 48 and bytes(prompt.tolist()) in text for prompt in prompts)


def test_a_relative_source_is_made_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert TextConfig(source="poems").source == str(folder)
    assert TextConfig().source == "stdlib"


def test_the_test_takes_windows_that_validation_leaves(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", validation_tokens=100)
    tested, validated = task._starts("test"), task._starts("validation")
    assert len(tested) == 6
    assert not set(tested) & set(validated)
    assert (np.diff(tested) >= 16).all()
    assert tested[-1] > len(task._ready()[0]["validation"]) * 0.7
    held_out = task._ready()[0]["validation"]
    inputs = [task.batch("test", step, 4, seed=step).inputs for step in range(task.evaluation_steps(4, "test"))]
    assert torch.cat(inputs)[:6].tolist() == [held_out[start : start + 16].tolist() for start in tested]
    assert (task.batch("test", 1, 4).targets[2:] == IGNORE).all()


def test_where_validation_leaves_nothing_there_is_no_test(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache")
    assert task.splits == ("train", "validation")
    with pytest.raises(SpecError, match="validation takes all"):
        task.batch("test", 0, 1)


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


def test_hidden_tokens_are_the_targets_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    hidden, plain = (prepared(folder, tmp_path, mask=mask) for mask in (0.3, 0.0))
    for split in ("train", "validation"):
        masked, whole = (task.batch(split, 2, 40) for task in (hidden, plain))
        gone = masked.inputs == 256
        counted = masked.targets != IGNORE
        assert torch.equal(counted, gone & (whole.targets != IGNORE))
        assert torch.equal(masked.targets[counted], whole.inputs[counted])
        assert torch.equal(masked.inputs[~gone], whole.inputs[~gone])
        assert gone.any(1).all()
        assert 0.2 < gone.double().mean() < 0.4


def test_a_masked_text_has_an_id_more_and_is_not_causal(folder: Path, tmp_path: Path) -> None:
    hidden, plain = (prepared(folder, tmp_path, mask=mask) for mask in (0.15, 0.0))
    assert (hidden.vocab_size, plain.vocab_size) == (257, 256)
    assert (hidden.causal, plain.causal) == (False, True)
    assert hidden.prompts() == []
    assert hidden.describe() == plain.describe()
    assert len([*(tmp_path / "text").iterdir()]) == 1, "the tokens are the same: they are kept once"


def test_validation_hides_the_same_tokens_for_every_seed(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path, mask=0.15)
    first, other = (task.batch("validation", 1, 4, seed=seed, rank=seed) for seed in (0, 1))
    assert torch.equal(first.inputs, other.inputs)
    again = task.batch("validation", 1 + task.evaluation_steps(4), 4)
    assert torch.equal(first.inputs, again.inputs)
    one, two = task.batch("train", 0, 4).inputs == 256, task.batch("train", 1, 4).inputs == 256
    assert not torch.equal(one, two)


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


def test_characters_are_ids_and_nothing_is_lost(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", tokenizer="characters", vocab_size=64)
    alphabet = sorted({*"".join(poem(n) for n in range(60)), "\0"})
    found = documents(task)
    assert sorted(found["train"] + found["validation"]) == sorted(poem(n) for n in range(60))
    assert max(int(task.batch("train", step, 8).inputs.max()) for step in range(20)) < len(alphabet)
    counted = task._ready()[2]
    assert counted[: len(alphabet)].tolist() == [len(c.encode()) for c in alphabet]
    assert counted[len(alphabet) :].sum() == 0


def test_too_few_ids_for_the_characters_are_refused_with_their_number(folder: Path, tmp_path: Path) -> None:
    characters = len({*"".join(poem(n) for n in range(60)), "\0"})
    with pytest.raises(DataError, match=rf"has {characters} characters.*Raise it to {characters}"):
        prepared(folder, tmp_path / "cache", tokenizer="characters", vocab_size=10)


def test_bpe_of_fewer_ids_than_bytes_is_refused() -> None:
    with pytest.raises(SpecError, match=r"task\.options\.vocab_size: .*256 bytes"):
        Text(TextConfig(tokenizer="bpe", vocab_size=200)).check()

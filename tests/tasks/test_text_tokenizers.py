"""Text as ids and back: nothing is lost, and what is counted is counted in bytes."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from texts import documents, poem, prepared

from chimeralab.contracts import IGNORE, Evaluation
from chimeralab.errors import DataError, SpecError
from chimeralab_plugins.tasks.text import Text, TextConfig
from chimeralab_plugins.tasks.tokenizer import Bpe


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

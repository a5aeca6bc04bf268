"""Windows of a text: where training, validation and test take them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from texts import prepared

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError


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


def test_prompts_are_pieces_of_the_validation_split(folder: Path, tmp_path: Path) -> None:
    task = prepared(folder, tmp_path / "cache", sequence_length=48)
    text = bytes(task._ready()[0]["validation"])
    prompts = task.prompts()
    assert len(prompts) == 3
    assert all(len(prompt) == 48 and bytes(prompt.tolist()) in text for prompt in prompts)


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

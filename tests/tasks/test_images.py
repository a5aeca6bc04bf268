"""Pictures as sequences of pixels or patches: the pictures themselves, order, division; they can be learned."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from chimeralab import DataError, RunSpec, SpecError
from chimeralab.contracts import IGNORE
from chimeralab.events import Metrics
from chimeralab.runs.check import check
from chimeralab.runs.execute import execute
from chimeralab.runs.sink import Listing
from chimeralab.stack.compose import compose
from chimeralab_plugins.tasks import patches
from chimeralab_plugins.tasks.images import Images, ImagesConfig

PICTURES = load_digits()


def task_of(cache: Path, **options: object) -> Images:
    task = Images(ImagesConfig(**options))
    task.check()
    task.prepare(cache)
    return task


def picture_of(tokens: torch.Tensor, order: str) -> np.ndarray:  # 8 8
    """The picture again: in Z-order each square of 4, 16, 64 pixels is one run, its quarters in reading order."""
    if order == "rows":
        return tokens.reshape(8, 8).numpy()

    def square(run: torch.Tensor) -> np.ndarray:
        if len(run) == 1:
            return run.numpy().reshape(1, 1)
        a, b, c, d = (square(quarter) for quarter in run.chunk(4))
        return np.block([[a, b], [c, d]])

    return square(tokens)


@pytest.mark.parametrize("order", ["rows", "z"])
def test_each_image_is_there_once_with_its_digit(order: str, tmp_path: Path) -> None:
    task = task_of(tmp_path, order=order)
    seen = []
    for split, count in (("train", 1397), ("validation", 200), ("test", 200)):
        batch = task.batch(split, 0, count)
        assert bool((batch.targets[:, :-1] == IGNORE).all())
        seen += [
            (picture_of(tokens, order).tobytes(), int(target) - 17)
            for tokens, target in zip(batch.inputs, batch.targets[:, -1], strict=True)
        ]
    pictures = PICTURES.images.astype(np.int64)
    wanted = [(picture.tobytes(), int(digit)) for picture, digit in zip(pictures, PICTURES.target, strict=True)]
    assert sorted(seen) == sorted(wanted)


@pytest.mark.parametrize("order", ["rows", "z"])
def test_patches_are_squares_of_the_pictures(order: str, tmp_path: Path) -> None:
    """Against slices of the pictures, patch by patch."""
    task = task_of(tmp_path, patch=2, order=order)
    batch, chosen = task.batch("validation", 0, 200), task.numbers("validation")
    assert batch.inputs.shape == (200, 16, 4)
    rows = [(row, column) for row in range(4) for column in range(4)]
    if order == "z":
        rows = [(2 * a + c, 2 * b + d) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)]
    for place, (row, column) in enumerate(rows):
        wanted = PICTURES.images[chosen, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(200, 4) / 8 - 1
        np.testing.assert_allclose(batch.inputs[:, place], wanted, atol=1e-6)
    assert torch.equal(batch.targets, torch.from_numpy(PICTURES.target[chosen]))


@pytest.mark.parametrize(("order", "height", "width", "patch"), [("rows", 4, 6, 2), ("z", 8, 8, 1), ("z", 8, 8, 4)])
def test_patches_join_to_the_picture_again(order: str, height: int, width: int, patch: int) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(3, height, width, 3))
    rows = patches.cut(pixels, patch, order)
    assert rows.shape == (3, patches.count(height, width, patch), patch * patch * 3)
    np.testing.assert_array_equal(patches.join(rows, height, width, patch, order), pixels)


def coloured(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (count, height, width, channels)[: 4 if channels > 1 else 3]
    return np.random.default_rng(1).integers(256, size=shape, dtype=np.uint8)


def written(folder: Path, images: np.ndarray, suffix: str = "png") -> Path:
    """A folder of two classes, "cat" and "dog", in turns."""
    for number, image in enumerate(images):
        (folder / ("cat", "dog")[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / ("cat", "dog")[number % 2] / f"{number:03}.{suffix}")
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_pictures_is_read_once_by_class(channels: int, tmp_path: Path) -> None:
    images = coloured(20, 6, 8, channels)
    folder = written(tmp_path / "pictures", images)
    said: list[str] = []
    for _ in range(2):
        task = Images(ImagesConfig(source=str(folder), patch=2, held_out=4))
        task.prepare(tmp_path / "cache", said.append)
    assert len(said) == 1
    assert (task.sequence_length, task.input_features) == (12, 4 * channels)
    assert task.facts.names == ("cat", "dog")
    by_class = np.concatenate([images[0::2], images[1::2]]).reshape(20, 6, 8, channels)
    chosen = task.numbers("test")
    batch = task.batch("test", 0, 4)
    joined = patches.join(batch.inputs.numpy(), 6, 8, 2, "rows")
    np.testing.assert_allclose((joined + 1) * 127.5, by_class[chosen], atol=1e-3)
    assert batch.targets.tolist() == (chosen >= 10).astype(int).tolist()


def test_another_process_may_decode_the_same_folder_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another machine, whose number may be that of this one."""
    options = {"source": str(written(tmp_path / "pictures", coloured(20, 4, 4, 1))), "patch": 1, "held_out": 4}
    save, others = np.save, []

    def save_slowly(*given: Any) -> None:
        save(*given)
        if not others:
            others.append(None)
            others.append(task_of(tmp_path / "cache", **options))

    monkeypatch.setattr(np, "save", save_slowly)
    task = task_of(tmp_path / "cache", **options)
    assert torch.equal(task.batch("test", 0, 4).inputs, others[1].batch("test", 0, 4).inputs)
    assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_an_archive_is_read(channels: int, tmp_path: Path) -> None:
    images, labels = coloured(20, 4, 4, channels), np.arange(20) % 3
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    task = task_of(tmp_path, source=str(tmp_path / "a.npz"), patch=1, held_out=5, order="z")
    chosen = task.numbers("validation")
    batch = task.batch("validation", 0, 5)
    joined = patches.join(batch.inputs.numpy(), 4, 4, 1, "z")
    np.testing.assert_allclose((joined + 1) * 127.5, images.reshape(20, 4, 4, channels)[chosen], atol=1e-3)
    assert batch.targets.tolist() == labels[chosen].tolist()
    assert task.chance()["accuracy"] == pytest.approx(1 / 3)


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    mixed = written(tmp_path / "mixed", coloured(6, 4, 4))
    Image.fromarray(coloured(1, 4, 5)[0]).save(mixed / "dog" / "zz.png")
    grey = {"images": coloured(8, 4, 4, 1), "labels": np.zeros(8, int)}
    np.savez(tmp_path / "short.npz", **{**grey, "labels": np.zeros(7, int)})
    np.savez(tmp_path / "floats.npz", **{**grey, "images": np.zeros((8, 4, 4))})
    np.savez(tmp_path / "coloured.npz", **{**grey, "images": coloured(8, 4, 4)})
    np.savez(tmp_path / "good.npz", **grey)
    (tmp_path / "empty").mkdir()
    for source, options, match in (
        ("gone", {}, "neither a folder nor"),
        ("empty", {}, "no picture in a subfolder"),
        ("mixed", {"patch": 2, "held_out": 1}, r"zz\.png has 5 · 4 coloured pixels, and 000\.png 4 · 4"),
        ("short.npz", {}, "labels are int64 of shape"),
        ("floats.npz", {}, "images are float64"),
        ("coloured.npz", {"held_out": 2}, "no tokens"),
        ("good.npz", {"held_out": 4}, "leave none of 8"),
        ("good.npz", {"held_out": 2, "patch": 3}, "cut into patches of 3"),
        ("mixed/cat", {}, "no picture in a subfolder"),
    ):
        with pytest.raises((SpecError, DataError), match=match):
            task_of(tmp_path / "cache", **{"source": str(tmp_path / source), **options})


def test_a_grid_that_is_no_square_has_no_z_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", images=coloured(8, 4, 8, 1), labels=np.zeros(8, int))
    with pytest.raises(SpecError, match="grid of 4 · 2 has no Z-order"):
        task_of(tmp_path, source=str(tmp_path / "wide.npz"), held_out=2, patch=2, order="z")


def test_an_epoch_walks_all_images_and_another_seed_otherwise(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    first, second, other = (task.batch("train", step, 1397, seed=seed) for step, seed in ((0, 0), (1, 0), (0, 1)))
    for batch in (second, other):
        assert not torch.equal(batch.inputs, first.inputs)
        assert sorted(map(tuple, batch.inputs.tolist())) == sorted(map(tuple, first.inputs.tolist()))


@pytest.mark.parametrize("patch", [None, 2])
def test_rows_past_the_last_validation_image_count_nothing(patch: int | None, tmp_path: Path) -> None:
    task = task_of(tmp_path, patch=patch)
    counted = [int((task.batch("validation", step, 64).targets != IGNORE).sum()) for step in range(5)]
    assert counted == [64, 64, 64, 8, 64]
    assert task.evaluation_steps(64) == 4


def test_without_scikit_learn_the_task_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimeralab_plugins.tasks.pictures.find_spec", lambda name: None)
    assert importlib.util.find_spec("sklearn") is not None
    with pytest.raises(DataError, match=r"scikit-learn.*chimeralab\[images\]"):
        check(spec_of("attention", 1))


def spec_of(pattern: str, steps: int, order: str = "rows", patch: int | None = None, **settings: object) -> RunSpec:
    return RunSpec.model_validate(
        {
            "stack": compose(pattern, d_model=32, **settings),
            "task": {"name": "images", "options": {"order": order, "patch": patch}},
            "train": {"steps": steps, "batch_size": 48, "lr": 3e-3, "warmup_steps": 10, "eval_every": steps},
            "profile": {"contexts": []},
        }
    )


@pytest.mark.parametrize(
    ("pattern", "order", "patch"),
    [
        ("attention[rope=false] x2", "rows", None),
        ("bidirectional_attention[rope=false] x2", "z", None),
        ("bidirectional_attention[rope=false] x2", "rows", 2),
    ],
)
def test_digits_are_learned_one_way_and_both_ways(pattern: str, order: str, patch: int | None, tmp_path: Path) -> None:
    sink = Listing()
    execute(
        spec_of(pattern, 120, order, patch, positions=64), folder=tmp_path / "run", cache=tmp_path / "cache", sink=sink
    )
    values = [event.values for event in sink.events if isinstance(event, Metrics)]
    accuracy = [found["validation/accuracy"] for found in values if "validation/accuracy" in found]
    assert accuracy[-1] > 0.6  # a guess scores 0.1

"""Diffusion: noise is mixed in as defined, drawing solves the flow's equation, the distance is Fréchet's; it trains."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from chimeralab import RunSpec, SpecError
from chimeralab.contracts import Told
from chimeralab.events import Event, Metrics, Sample
from chimeralab.metrics import parse
from chimeralab.runs.check import check
from chimeralab.runs.execute import execute
from chimeralab.runs.sink import Listing
from chimeralab.runs.trainer import Cancelled
from chimeralab.stack.compose import compose
from chimeralab_plugins.tasks import frechet, noise, png
from chimeralab_plugins.tasks.diffusion import Diffusion, DiffusionConfig

DIGITS = load_digits()
GAUSS = (0.3, 0.5)  # mean and deviation of the pictures that a solution is known for


def task_of(cache: Path, **options: object) -> Diffusion:
    task = Diffusion(DiffusionConfig(**options))
    task.check()
    task.prepare(cache)
    return task


@pytest.mark.parametrize("asked", ["v", "noise"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_batch_is_pictures_mixed_with_normal_noise(asked: str, split: str, tmp_path: Path) -> None:
    """Picture and noise are solved for from input and target, and both are what they should be."""
    task = task_of(tmp_path, asked=asked, patch=4, untold=0.25, drawn=0)
    batch = task.batch(split, 0, 200)
    t = batch.told.levels.double()[:, None, None]
    alpha, sigma = torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)
    x, y = batch.inputs.double(), batch.targets.double()
    unclean = y if asked == "noise" else sigma * x + alpha * y
    clean = (x - sigma * unclean) / alpha if asked == "noise" else alpha * x - sigma * y
    assert unclean.mean().item() == pytest.approx(0, abs=0.03)
    assert unclean.std().item() == pytest.approx(1, abs=0.03)
    pictures = DIGITS.images / 8 - 1
    wanted = np.stack([pictures[:, a : a + 4, b : b + 4].reshape(-1, 16) for a in (0, 4) for b in (0, 4)], 1)
    sure = (alpha > 0.1).squeeze()
    apart = np.abs(wanted[None] - clean[sure].numpy()[:, None]).max((2, 3))  # each row of the batch to each picture
    chosen = apart.argmin(1)
    assert apart.min(1).max() < 1e-4
    told = batch.told.classes[sure].numpy()
    assert bool(((told == DIGITS.target[chosen]) | (told == 10)).all())
    assert (batch.told.classes == 10).double().mean().item() == pytest.approx(0.25 * (split == "train"), abs=0.1)


def test_levels_to_validate_on_cover_all_evenly(tmp_path: Path) -> None:
    task = task_of(tmp_path, drawn=0)
    levels = torch.cat([task.batch("validation", step, 64).told.levels for step in range(4)])[:200].sort().values
    assert (levels - (torch.arange(200) + 0.5) / 200).abs().max() < 0.02
    counted = [int((~task.batch("validation", step, 64).targets.isnan()).all(2).all(1).sum()) for step in range(4)]
    assert counted == [64, 64, 64, 8]


def test_the_loss_is_measured_by_quarter_of_the_level(tmp_path: Path) -> None:
    task = task_of(tmp_path, drawn=0)
    batch = task.batch("validation", 3, 64)  # 8 pictures, 56 rows that count nothing
    found = task.metrics(task.measure(torch.zeros_like(batch.targets), batch))
    errors, levels = batch.targets[:8].square().mean((1, 2)), batch.told.levels[:8]
    assert found["loss"] == pytest.approx(errors.mean().item(), rel=1e-5)
    for end in (0.25, 0.5, 0.75, 1):
        within = (levels >= end - 0.25) & (levels < end)
        assert found[f"loss@level={end:g}"] == pytest.approx(errors[within].mean().item(), rel=1e-5)
        assert dict(parse(f"validation/loss@level={end:g}").axes) == {"level": end}


def best_guess(asked: str) -> object:
    """What a perfect model gives where each number of a picture is normal: the posterior mean, in closed form."""
    mean, deviation = GAUSS

    def model(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (f(levels * math.pi / 2)[:, None, None] for f in (torch.cos, torch.sin))
        gain = deviation**2 * alpha / (alpha**2 * deviation**2 + sigma**2)
        clean = mean + gain * (x - alpha * mean)
        unclean = (x - alpha * clean) / sigma
        return unclean if asked == "noise" else alpha * unclean - sigma * clean

    return model


@pytest.mark.parametrize("asked", ["v", "noise"])
def test_drawing_follows_the_probability_flow_to_its_known_end(asked: str) -> None:
    """For normal pictures the flow keeps (x - α μ) / √(α² s² + σ²) as it was at the start."""
    mean, deviation = GAUSS
    start = torch.randn(64, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = math.cos(noise.LAST * math.pi / 2), math.sin(noise.LAST * math.pi / 2)
    score = (start - alpha * mean) / math.sqrt(alpha**2 * deviation**2 + sigma**2)
    wanted = mean + deviation * score
    errors = [
        (noise.draw(best_guess(asked), start, steps, asked, within=None) - wanted).abs().max().item()
        for steps in (25, 100, 400)
    ]
    assert errors[2] < 0.01
    assert errors[0] > 2.5 * errors[1] > 2.5 * 2.5 * errors[2]  # of first order


def test_guesses_outside_of_a_picture_are_moved_to_its_edge() -> None:
    start = torch.zeros(1, 1, 2)
    drawn = noise.draw(lambda x, _: torch.tensor([[[-40.0, 40.0]]]).expand_as(x), start, 10, "v")
    assert drawn.tolist() == [[[1, -1]]]


def test_guidance_adds_what_the_class_adds(tmp_path: Path) -> None:
    task = task_of(tmp_path, guidance=3.0, drawn=0)
    x, levels, classes = torch.zeros(2, 16, 4), torch.full((2,), 0.5), torch.tensor([1, 4])

    def model(x: torch.Tensor, told: Told) -> torch.Tensor:
        return x + told.classes[:, None, None]

    assert task._guess(model, classes, x, levels)[:, 0, 0].tolist() == [10 + 3 * (1 - 10), 10 + 3 * (4 - 10)]


def test_the_distance_is_frechets_in_the_space_of_principal_components() -> None:
    """Against scikit-learn's components and SciPy's matrix square root."""
    rows = torch.from_numpy(DIGITS.data).double()
    ours = frechet.Components(rows[:300], 12)
    pca = PCA(12).fit(DIGITS.data[:300])
    one, other = pca.transform(DIGITS.data[300:500]), pca.transform(DIGITS.data[500:1000] * 0.8)
    cov, cov2 = np.cov(one.T), np.cov(other.T)
    wanted = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(cov + cov2 - 2 * sqrtm(cov @ cov2).real)
    found = frechet.distance(ours(rows[300:500]), ours(rows[500:1000] * 0.8))
    assert found == pytest.approx(wanted, rel=1e-8)
    assert frechet.distance(ours(rows), ours(rows)) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_is_a_png_file(channels: int) -> None:
    pictures = np.random.default_rng(0).integers(256, size=(5, 3, 4, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(png.encode(png.sheet(pictures, 2)))) as image:
        read = np.asarray(image).reshape(11, 9, channels)
    for number, picture in enumerate(pictures):
        row, column = 4 * (number // 2), 5 * (number % 2)
        np.testing.assert_array_equal(read[row : row + 3, column : column + 4], picture)
    assert not read[3].any()


def spec_of(pattern: str, steps: int, options: dict, **settings: object) -> RunSpec:
    return RunSpec.model_validate(
        {
            "stack": compose(pattern, d_model=32, **settings),
            "task": {"name": "diffusion", "options": options},
            "train": {"steps": steps, "batch_size": 64, "lr": 4e-3, "warmup_steps": 10, "eval_every": steps},
            "profile": {"contexts": [8]},
        }
    )


def run(spec: RunSpec, folder: Path) -> list[Event]:
    sink = Listing()
    execute(spec, folder=folder / "run", cache=folder / "cache", sink=sink)
    return sink.events


def last(events: list[Event], metric: str) -> float:
    return [event.values[metric] for event in events if isinstance(event, Metrics) and metric in event.values][-1]


@pytest.mark.parametrize("asked", ["v", "noise"])
def test_a_small_dit_learns_to_draw_digits(asked: str, tmp_path: Path) -> None:
    options = {"asked": asked, "drawn": 100, "steps": 20}
    stack = {"residual": "adaptive", "norm": "layer", "positions": 16}
    events = run(spec_of("bidirectional_attention[rope=false, heads=2] x2, ffn=mlp", 200, options, **stack), tmp_path)
    chance = task_of(tmp_path, **options).chance()
    assert last(events, "validation/loss") < 0.6 * chance["loss"]
    assert last(events, "validation/frechet_distance") < 0.4 * chance["frechet_distance"]
    assert last(events, "test/frechet_distance") < 0.4 * chance["frechet_distance"]
    samples = [event for event in events if isinstance(event, Sample)]
    assert len(samples) == 1
    with Image.open(io.BytesIO(base64.b64decode(samples[0].image))) as image:
        assert image.size == (89, 89)


def test_an_hourglass_trains_and_a_second_run_measures_the_same(tmp_path: Path) -> None:
    spec = spec_of("hdit", 3, {"drawn": 40, "steps": 2}, condition=128)
    first, second = (run(spec, tmp_path / name) for name in ("one", "two"))
    for metric in ("train/loss", "validation/loss", "validation/frechet_distance", "test/loss@level=0.5"):
        assert last(first, metric) == last(second, metric)


class StopAt(Listing):
    """Asks the run to stop before the step after `step`."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_resumed_run_draws_the_same_pictures(tmp_path: Path) -> None:
    spec = spec_of("bidirectional_attention[heads=2]", 8, {"drawn": 40, "steps": 3}, residual="scaled")
    whole, before, after = Listing(), StopAt(5), Listing()
    execute(spec, folder=tmp_path / "whole", cache=tmp_path, sink=whole)
    with pytest.raises(Cancelled):
        execute(spec, folder=tmp_path / "two", cache=tmp_path, sink=before)
    (stopped,) = (tmp_path / "two" / "checkpoints").iterdir()
    execute(spec, folder=tmp_path / "two", cache=tmp_path, sink=after, resume=stopped)
    assert last(after.events, "train/loss") == last(whole.events, "train/loss")
    assert [e.image for e in after.events if isinstance(e, Sample)] == [
        e.image for e in whole.events if isinstance(e, Sample)
    ]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [({"patch": 1}, "Write columns=8"), ({"order": "z"}, "Leave columns out"), ({"patch": 2}, None)],
)
def test_a_grid_that_the_pictures_are_not_is_refused(options: dict, remedy: str | None) -> None:
    for mixer in ("neighborhood_attention[columns=4]", "hourglass(bidirectional_attention, columns=4)"):
        spec = spec_of(f"bidirectional_attention, {mixer}", 1, options, residual="scaled")
        if remedy is None:
            check(spec)
            continue
        with pytest.raises(SpecError, match="rows of 4 tokens") as error:
            check(spec)
        assert error.value.place == f"layer 1: {mixer.partition('[')[0].partition('(')[0]}.columns"
        assert error.value.remedy == remedy


@pytest.mark.parametrize(
    ("settings", "options", "place"),
    [
        ({}, {}, "stack.residual"),
        ({"residual": "adaptive"}, {"drawn": 32}, "task.options.drawn"),
        ({"residual": "adaptive"}, {"components": 190, "drawn": 300, "held_out": 150}, "task.options.components"),
        ({"residual": "adaptive"}, {"patch": 3}, "task.options.patch"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict, options: dict, place: str) -> None:
    with pytest.raises(SpecError) as error:
        check(spec_of("bidirectional_attention", 1, options, **settings))
    assert error.value.place == place

"""Tell noise from picture: what a diffusion model learns, and what it draws with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from chimeralab import SpecError
from chimeralab.contracts import Batch, Drawn, Evaluation, Predict, Probe, Readout, Regression, Told
from chimeralab.contracts.task import Split
from chimeralab_plugins.tasks import draws, noise, patches, png
from chimeralab_plugins.tasks.frechet import MOST, Components, distance
from chimeralab_plugins.tasks.noise import Asked
from chimeralab_plugins.tasks.picture_task import PicturesConfig, PictureTask

QUARTERS = ("0.25", "0.5", "0.75", "1")
AT_ONCE = 64  # pictures drawn side by side
SHOWN, COLUMNS, PIXELS = 100, 10, 2**19  # of them, on one sheet
GOLDEN = (math.sqrt(5) - 1) / 2


class DiffusionConfig(PicturesConfig):
    patch: int = Field(2, ge=1, le=1024, description="Pixels of a patch's side")
    asked: Asked = Field("v", description="What the model gives: the noise, or v, which is α noise - σ picture")
    untold: float = Field(0.1, ge=0, le=1, description="Share of training pictures whose class is not told")
    drawn: int = Field(
        200, ge=0, le=100_000, description="Pictures drawn at each evaluation to measure their distance; 0: none"
    )
    components: int = Field(32, ge=1, le=2048, description="Principal components that the distance is measured in")
    steps: int = Field(50, ge=1, le=1000, description="Steps of DDIM to draw a picture")
    guidance: float = Field(
        1.0, ge=0, le=100, description="Weight of what the class adds to a guess (1: as it is, and half the work)"
    )


class Diffusion(PictureTask):
    """Patches of a picture mixed with noise, told how much and of which class; asked: the noise, or v.

    The level of noise is drawn evenly from 0 … 1, the schedule is the cosine's (`noise`), the loss the mean squared
    error of each number. Pictures that validate and test meet fixed noise at levels that cover 0 … 1 evenly; the loss
    by quarter of the level is measured too.

    At evaluations the model draws as many pictures as are asked for, of the classes of the first pictures of that
    split. `frechet_distance` is between those pictures (numbers from -1 to 1) and all of the split, projected on the
    first principal components of the training pictures. It grows smaller with more pictures: compare at equal numbers.

    Source: DDPM (arXiv 2006.11239), DDIM (arXiv 2010.02502), v and the cosine of progressive distillation (arXiv
    2202.00512), classes left out and guidance (arXiv 2207.12598), stacks as in DiT (arXiv 2212.09748).
    """

    name = "diffusion"
    title = "Diffusion"
    summary = "Tell noise from pictures, and draw new ones"
    source = "https://arxiv.org/abs/2212.09748"
    Config = DiffusionConfig
    config: DiffusionConfig
    tells = True

    def check(self) -> None:
        super().check()
        c = self.config
        if 0 < c.drawn <= c.components:
            raise SpecError(
                f"{c.drawn} pictures say too little of their distance in {c.components} components",
                place="task.options.drawn",
                remedy="Draw more pictures than components, or none",
            )
        room = min(self.sequence_length * self.features, len(self.numbers("train")) - 1, c.held_out - 1)
        if c.drawn and c.components > room:
            raise SpecError(
                f"there are no {c.components} components of these pictures",
                place="task.options.components",
                remedy=f"Take at most {room}, or draw none",
            )

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        super().prepare(cache, report)
        if self.config.drawn:
            train, drawn = self.numbers("train"), self.config.drawn
            self._components = Components(self._flat(train[:MOST]), self.config.components)
            found = distance(*map(self._components, (self._flat(np.resize(train, drawn)), self._real("validation"))))
            report(f"{drawn} training pictures are at a Fréchet distance of {found:.3g} from those to validate on")

    @property
    def side(self) -> int:
        return self.config.patch

    @property
    def features(self) -> int:
        return self.config.patch**2 * self.facts.shape[-1]

    @property
    def vocab_size(self) -> int:
        return 0

    @property
    def input_features(self) -> int:
        return self.features

    @property
    def classes(self) -> int:
        return len(self.facts.names)

    @property
    def readout(self) -> Callable[[int], Readout]:
        return partial(Regression, features=self.features)

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        """Rows past the last picture of a split have targets that are not numbers, and count nothing."""
        chosen, counted = self.chosen(split, step, size, seed, rank)
        T, F = self.sequence_length, self.features
        if split == "train":
            stream, rows = draws.key(self.name, split, seed, step, rank), np.arange(size)
        else:
            stream, rows = draws.key(self.name, split), step % self.evaluation_steps(size) * size + np.arange(size)
        for_noise, for_level, for_telling = draws.of_rows(stream, rows, [T * F, 1, 1])
        if split == "train":
            levels = draws.unit(for_level)[:, 0]
            told = draws.unit(for_telling)[:, 0] >= self.config.untold
        else:
            levels, told = (rows + 0.5) * GOLDEN % 1, np.full(size, True)
        classes = np.where(told, self.pictures.labels[chosen], self.classes)
        told_levels = torch.from_numpy(levels.astype(np.float32))
        clean, unclean = torch.from_numpy(self.numbers_of(chosen)), _normal(for_noise).reshape(size, T, F)
        inputs, targets = noise.mixed(clean, unclean, told_levels, self.config.asked)
        targets[torch.from_numpy(~counted)] = math.nan
        return Batch(inputs, targets, Told(told_levels, torch.from_numpy(classes)))

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:  # logits: B T F, the numbers asked for
        errors = (logits.float() - batch.targets).square().mean((1, 2))
        counted = ~errors.isnan()
        assert batch.told is not None
        quarters = (batch.told.levels * 4).long().clamp(max=3)
        sums = {}
        for number, name in enumerate(QUARTERS):
            within = counted & (quarters == number)
            sums[f"loss {name}"], sums[f"pictures {name}"] = float(errors[within].sum()), float(within.sum())
        return Evaluation(loss=float(errors[counted].sum()), targets=float(counted.sum()), sums=sums)

    def metrics(self, total: Evaluation) -> dict[str, float]:
        found = {"loss": total.loss / max(total.targets, 1.0)}
        for name in QUARTERS:
            if total.sums.get(f"pictures {name}"):
                found[f"loss@level={name}"] = total.sums[f"loss {name}"] / total.sums[f"pictures {name}"]
        return found

    def chance(self) -> dict[str, float]:
        """Of a model that always gives zeros; the distance is that of noise from the pictures to validate on."""
        if self._pictures is None:
            return {}
        kept = self.numbers_of(self.numbers("validation"))
        found = {"loss": 1.0 if self.config.asked == "noise" else float(1 + np.square(kept).mean()) / 2}
        if self.config.drawn:
            found["frechet_distance"] = self._distance(self._noise("validation").clamp(-1, 1), "validation")
        return found

    def probe(self, model: Predict, split: Split) -> Probe | None:
        if not self.config.drawn:
            return None
        labels = self.pictures.labels[np.resize(self.numbers(split), self.config.drawn)]
        start, classes = self._noise(split), torch.from_numpy(labels)
        drawn = torch.cat(
            [
                noise.draw(partial(self._guess, model, of), x, self.config.steps, self.config.asked)
                for x, of in zip(start.split(AT_ONCE), classes.split(AT_ONCE), strict=True)
            ]
        ).clamp(-1, 1)
        by_class = np.argsort(labels, kind="stable")
        room = max(1, PIXELS // math.prod(self.facts.shape[1:3]))
        shown = by_class[np.linspace(0, len(labels) - 1, min(len(labels), SHOWN, room), dtype=np.int64)]
        image = png.encode(png.sheet(self._pixels(drawn[torch.from_numpy(shown)]), COLUMNS))
        said = f"{len(shown)} pictures, by class, {self.config.steps} steps"
        return Probe({"frechet_distance": self._distance(drawn, split)}, [Drawn(said, image=image)])

    def _guess(self, model: Predict, classes: Tensor, x: Tensor, levels: Tensor) -> Tensor:
        told = model(x, Told(levels, classes))
        if self.config.guidance == 1:
            return told
        untold = model(x, Told(levels, torch.full_like(classes, self.classes)))
        return untold + self.config.guidance * (told - untold)

    def _noise(self, split: Split) -> Tensor:  # N T F
        T, F = self.sequence_length, self.features
        stream = draws.key(self.name, "start", split)
        return _normal(draws.bits(stream, np.arange(self.config.drawn * T * F))).reshape(-1, T, F)

    def _distance(self, drawn: Tensor, split: Split) -> float:  # N T F
        return distance(self._components(drawn.flatten(1)), self._components(self._real(split)))

    def _real(self, split: Split) -> Tensor:  # N T·F
        return self._flat(self.numbers(split))

    def _flat(self, chosen: NDArray[np.int64]) -> Tensor:  # N T·F
        return torch.from_numpy(self.numbers_of(chosen)).flatten(1)

    def _pixels(self, drawn: Tensor) -> NDArray[np.uint8]:  # N T F -> N H W C
        _, H, W, _ = self.facts.shape
        pixels = patches.join(drawn.numpy(), H, W, self.side, self.config.order)
        return np.round((pixels + 1) * 127.5).astype(np.uint8)


def _normal(bits: NDArray[np.uint64]) -> Tensor:
    """Standard normal numbers, float32, one of each draw."""
    return torch.special.ndtri(torch.from_numpy(draws.unit(bits))).float()

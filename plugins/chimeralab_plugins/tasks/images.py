"""Name what a picture shows, read pixel by pixel or patch by patch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pydantic import Field

from chimeralab import SpecError
from chimeralab.contracts import IGNORE, Batch, Classifier, Readout
from chimeralab.contracts.task import Split
from chimeralab_plugins.tasks.picture_task import PicturesConfig, PictureTask


class ImagesConfig(PicturesConfig):
    patch: int | None = Field(
        None, ge=1, le=1024, description="Pixels of a patch's side, which go in as numbers; empty: pixels, as tokens"
    )


class Images(PictureTask):
    """Classes of pictures; by default the 1,797 digits of scikit-learn's `load_digits`, 8 · 8 pixels of 17 greys.

    By pixels: a sequence is a grey picture's pixels, as ids 0 … values - 1; the target, at the last pixel alone, is
    id values + class. Where the answer stands everything has been seen, so mixers may look both ways.

    By patches: at each place stand the numbers of one patch, from -1 to 1; the class is read off the mean of all
    hidden states.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998); images as sequences of pixels
    after Le, Jaitly and Hinton (arXiv 1504.00941), of patches after ViT (arXiv 2010.11929), their mean after Zhai et
    al. (arXiv 2106.04560).
    """

    name = "images"
    title = "Images"
    summary = "Name what a picture shows, from its pixels or patches one after another"
    source = "https://archive.ics.uci.edu/dataset/80"
    Config = ImagesConfig
    config: ImagesConfig
    metric = "accuracy"
    higher_is_better = True

    def check(self) -> None:
        super().check()
        if self.config.patch is None and self.facts.shape[-1] != 1:
            raise SpecError(
                "coloured pixels are no tokens", place="task.options.patch", remedy="Take patches: patch=1 or more"
            )

    @property
    def side(self) -> int:
        return self.config.patch or 1

    @property
    def vocab_size(self) -> int:
        return self.facts.values + len(self.facts.names) if self.config.patch is None else 0

    @property
    def input_features(self) -> int | None:
        return None if self.config.patch is None else self.config.patch**2 * self.facts.shape[-1]

    @property
    def readout(self) -> Callable[[int], Readout] | None:
        return None if self.config.patch is None else partial(Classifier, classes=len(self.facts.names))

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        chosen, counted = self.chosen(split, step, size, seed, rank)
        classes = np.where(counted, self.pictures.labels[chosen], IGNORE)
        if self.config.patch is not None:
            return Batch(torch.from_numpy(self.numbers_of(chosen)), torch.from_numpy(classes))
        inputs = self.sequences(chosen)[..., 0].astype(np.int64)
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = np.where(counted, self.facts.values + classes, IGNORE)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    def chance(self) -> dict[str, float]:
        """A guess among the classes."""
        classes = len(self.facts.names)
        return {"accuracy": 1 / classes, "loss": math.log(classes)}

    def decode(self, tokens: torch.Tensor) -> str:
        """Pixels as hexadecimal values, classes in brackets."""
        values, names = self.facts.values, self.facts.names
        return " ".join(f"[{names[int(t) - values]}]" if t >= values else f"{int(t):x}" for t in tokens)

"""What tasks over pictures share: where they come from, how they are divided, and how they become sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab import SpecError
from chimeralab.contracts import Task, TaskConfig
from chimeralab.contracts.task import Split
from chimeralab_plugins.tasks import draws, patches, pictures
from chimeralab_plugins.tasks.patches import Order
from chimeralab_plugins.tasks.pictures import DIGITS, Facts, Pictures


class PicturesConfig(TaskConfig):
    source: str = Field(
        DIGITS,
        min_length=1,
        description="'digits', a .npz file with images (N H W or N H W C, uint8) and labels (N), or a folder with a"
        " subfolder of pictures for each class",
    )
    order: Order = Field(
        "rows", description="How they follow one another: row by row, or in Z-order, where squares stay together"
    )
    held_out: int = Field(200, ge=1, le=1_000_000, description="Pictures to validate on, and as many to test on")
    data_seed: int = Field(0, ge=0, description="Divides the pictures; the run's seed chooses the order of training")


class PictureTask(Task):
    """Some pictures are for validation, as many for testing; training walks the others in epochs, each shuffled anew
    by seed and rank. Every one is there once."""

    Config = PicturesConfig
    config: PicturesConfig

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._pictures: Pictures | None = None

    @cached_property
    def facts(self) -> Facts:
        """Of the pictures, before they are read."""
        return pictures.facts(self.config.source)

    @property
    def side(self) -> int:
        """Pixels of a patch's side."""
        return 1

    def check(self) -> None:
        c, (count, H, W, _) = self.config, self.facts.shape
        if 2 * c.held_out >= count:
            raise SpecError(
                f"{c.held_out} pictures to validate on and as many to test on leave none of {count} to train on",
                place="task.options.held_out",
                remedy=f"Hold out fewer than {(count + 1) // 2}",
            )
        if H % self.side or W % self.side:
            raise SpecError(
                f"pictures of {W} · {H} pixels cannot be cut into patches of {self.side} · {self.side}",
                place="task.options.patch",
                remedy=f"Take a number that divides {math.gcd(H, W)}",
            )
        rows, columns = H // self.side, W // self.side
        if c.order == "z" and (rows != columns or rows & (rows - 1)):
            raise SpecError(
                f"a grid of {columns} · {rows} has no Z-order",
                place="task.options.order",
                remedy="Take order=rows, or patches that make a square of 2, 4, 8, 16, … a side",
            )

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        self._pictures = pictures.read(self.config.source, cache, report)

    @property
    def sequence_length(self) -> int:
        _, H, W, _ = self.facts.shape
        return patches.count(H, W, self.side)

    @property
    def causal(self) -> bool:
        """No later pixel holds the answer."""
        return False

    @property
    def grid_columns(self) -> int | None:
        return self.facts.shape[2] // self.side if self.config.order == "rows" else None

    def evaluation_steps(self, size: int, split: Split = "validation") -> int:
        return math.ceil(self.config.held_out / size)

    def chosen(
        self, split: Split, step: int, size: int, seed: int, rank: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Numbers of the pictures of a batch (B,), and whether each counts.

        Steps of validation and test start over after `evaluation_steps`; rows past the last picture count nothing.
        """
        numbers, rows = self.numbers(split), np.arange(size)
        if split == "train":
            epochs, places = np.divmod(step * size + rows, len(numbers))
            shuffled = np.empty(size, np.int64)
            for epoch in np.unique(epochs):
                order = draws.order(draws.key("images order", seed, rank, int(epoch)), len(numbers))
                shuffled[epochs == epoch] = order[places[epochs == epoch]]
            counted = np.full(size, True)
        else:
            shuffled = step % self.evaluation_steps(size) * size + rows
            counted = shuffled < len(numbers)
        return numbers[shuffled % len(numbers)], counted

    def numbers(self, split: Split) -> NDArray[np.int64]:
        """Which pictures belong to a split."""
        held = self.config.held_out
        order = draws.order(draws.key("images split", self.config.data_seed), self.facts.shape[0])
        return {"validation": order[:held], "test": order[held : 2 * held], "train": order[2 * held :]}[split]

    def sequences(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:  # B T F
        """The patches of these pictures, as pixels."""
        return patches.cut(self.pictures.pixels[chosen], self.side, self.config.order)

    def numbers_of(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:  # B T F
        """The patches of these pictures, from -1 (black) to 1."""
        return self.sequences(chosen).astype(np.float32) * np.float32(2 / (self.facts.values - 1)) - np.float32(1)

    @property
    def pictures(self) -> Pictures:
        if self._pictures is None:
            raise RuntimeError(f"call prepare(cache) before asking the task {self.name} for data")
        return self._pictures

    def describe(self) -> dict[str, Any]:
        count, H, W, C = self.facts.shape
        held = self.config.held_out
        return {
            "pictures": f"{W} · {H} pixels, {'grey' if C == 1 else 'coloured'}",
            "classes": len(self.facts.names),
            "train images": count - 2 * held,
            "validation images": held,
            "test images": held,
        }

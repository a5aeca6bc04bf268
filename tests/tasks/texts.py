"""Small corpora, a text task made ready on one, and what stands in its splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from chimeralab_plugins.tasks.text import Text, TextConfig

WORDS = ["naïve ", "façade ", "the ", "cat ", "→ ", "\n", "def f(x):\n    return x\n", "数 "]


def poem(number: int, length: int = 400) -> str:
    pick = np.random.default_rng(number)
    return "".join(WORDS[i] for i in pick.integers(len(WORDS), size=length // 4))


def prepared(source: Path | str, cache: Path, **options: object) -> Text:
    task = Text(TextConfig(source=str(source), **{"sequence_length": 16, **options}))
    task.check()
    task.prepare(cache)
    return task


def split_text(task: Text, split: str) -> str:
    return task.decode(torch.from_numpy(np.array(task._ready()[0][split]).astype(np.int64)))


def documents(task: Text) -> dict[str, list[str]]:
    return {split: split_text(task, split).split("\0")[:-1] for split in ("train", "validation")}

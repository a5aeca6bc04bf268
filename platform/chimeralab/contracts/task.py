"""The contract of a task: data, loss and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from chimeralab.contracts.ends import Ends, Readout, Told
from chimeralab.contracts.probe import Predict, Probe

Split = Literal["train", "validation", "test"]
IGNORE = -100
"""A target that neither the loss nor a metric counts."""
TOKENS = "tokens digest"
"""Key of `Task.describe`."""


class TaskConfig(BaseModel):
    """Options of a task; see `LayerConfig` for what the dashboard wants of a field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass
class Batch:
    """Sequences of tokens, or of numbers where a task has `input_features`.

    `targets[b, t]` is what position t should predict, or `IGNORE`; with a readout, whatever its loss takes.
    """

    inputs: Tensor  # B T, int64; or B T F, float32
    targets: Tensor  # B T, int64
    told: Told | None = None  # by a task that tells

    def tensors(self) -> list[Tensor]:
        """All that it holds, in an order that is the same for all batches of a task."""
        return [self.inputs, self.targets, *(tensor for tensor in self.told or () if tensor is not None)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with each tensor changed: moved, pinned, cut."""
        told = self.told
        if told is not None:
            told = Told(change(told.levels), None if told.classes is None else change(told.classes))
        return Batch(change(self.inputs), change(self.targets), told)

    def to(self, device: torch.device) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass
class Evaluation:
    """Sums over counted targets; they add up over batches, ranks and splits."""

    loss: float = 0.0  # nats
    correct: float = 0.0
    targets: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # a task's own

    def __add__(self, other: Evaluation) -> Evaluation:
        keys = self.sums.keys() | other.sums.keys()
        return Evaluation(
            self.loss + other.loss,
            self.correct + other.correct,
            self.targets + other.targets,
            {k: self.sums.get(k, 0.0) + other.sums.get(k, 0.0) for k in keys},
        )


class Task(ABC):
    """A task gives batches that are a pure function of (seed, split, step, rank): resuming needs no data state.

    It is trained on its split `train`, choices are made by `validation`, and when training has ended `test` is
    measured once, as are the tests of `evaluation_sets`: other lengths, numbers of pairs, places of what is asked.

    `prepare` does what is slow, once (reading, tokenising), into a cache folder shared by all runs; it must be
    safe when several processes call it at the same time. After it the properties below are known.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    Config: ClassVar[type[TaskConfig]] = TaskConfig
    metric: ClassVar[str] = "loss"  # what a leaderboard ranks by
    higher_is_better: ClassVar[bool] = False
    by_position: ClassVar[bool] = False
    """Whether the test is also measured by position in context. Then `measure` must treat all positions alike."""

    has_text: ClassVar[bool] = False
    """Whether its sequences are text, so that a model trained on it can be asked about other text."""

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @abstractmethod
    def check(self) -> None:
        """Raise `SpecError` or `DataError` where the options cannot work; quick, before anything is queued."""

    @abstractmethod
    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        """Make data ready; `report` tells a person what is going on."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Known before `prepare`: the model is built and costed from it. 0 where inputs are numbers."""

    @property
    @abstractmethod
    def sequence_length(self) -> int:
        """Tokens in one training sequence."""

    @property
    def input_features(self) -> int | None:
        """How many numbers stand at each place of a sequence, in place of a token; then the task has a readout."""
        return None

    @property
    def tells(self) -> bool:
        """Whether batches tell what no input says (`Batch.told`): a stack must have a condition to listen."""
        return False

    @property
    def classes(self) -> int:
        """How many classes a task that tells can tell of."""
        return 0

    @property
    def readout(self) -> Callable[[int], Readout] | None:
        """Makes, for a width, what reads the last hidden states; None: the head, which scores each token id."""
        return None

    @property
    def ends(self) -> Ends:
        """What a stack is built and costed with for this task."""
        return Ends(
            vocab_size=self.vocab_size,
            input_features=self.input_features,
            classes=self.classes,
            readout=self.readout,
        )

    @property
    def separator(self) -> int | None:
        """The token between documents, in a task that has text (`encode`); after `prepare`."""
        return None

    @property
    def causal(self) -> bool:
        """Whether later inputs give targets away, as the next token does; then no mixer may see the future."""
        return True

    @property
    def grid_columns(self) -> int | None:
        """Columns of the grid that a sequence is, read row by row, as a picture can be; None: no such grid."""
        return None

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that there are; they share no sequence but by chance. One without `test` is tested on nothing."""
        return ("train", "validation", "test")

    @abstractmethod
    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        """The batch of `size` sequences at `step`."""

    def evaluation_steps(self, size: int, split: Split = "validation") -> int | None:
        """How many batches of `size` cover the validation or test split; None: any number, it is drawn."""
        return None

    def evaluation_sets(self) -> Mapping[str, Task]:
        """Tasks of the same vocabulary on whose test splits a model trained on this one is measured besides.

        A key is where that is on one or several axes, such as "length=512" or "depth=0.5,length=1024": the metric
        of the set is named by it, `test/accuracy@length=512` (`chimeralab.metrics`). Known before `prepare`; they
        are prepared as this one is.
        """
        return {}

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:  # logits: B T V
        """Loss and accuracy over the counted targets of one batch. A task adds its own to `sums`."""
        counted = batch.targets != IGNORE
        wanted = batch.targets[counted]
        scores = logits[counted].float()
        loss = torch.nn.functional.cross_entropy(scores, wanted, reduction="sum")
        return Evaluation(float(loss), float((scores.argmax(-1) == wanted).sum()), float(wanted.numel()))

    def metrics(self, total: Evaluation) -> dict[str, float]:
        """Metrics by name, from the sums over a split."""
        n = max(total.targets, 1.0)
        return {"loss": total.loss / n, "accuracy": total.correct / n}

    def chance(self) -> dict[str, float]:
        """What each metric is for a model that knows nothing of the order of tokens, where that is known."""
        return {}

    def probe(self, model: Predict, split: Split) -> Probe | None:
        """What an evaluation on a split asks of the model besides: metrics of what it draws, and some of that to look
        at. Draws from no global generator, so that two evaluations of the same weights agree."""
        return None

    def prompts(self) -> list[Tensor]:
        """Token sequences (T,) for samples during training; none by default."""
        return []

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) as text for people."""
        return " ".join(str(int(t)) for t in tokens)

    def encode(self, text: str) -> Tensor:
        """Text as tokens (T,), in a task that `has_text`; after `prepare`. Raises SpecError: it has none for it."""
        raise NotImplementedError(f"{type(self).__name__} has no text")

    def describe(self) -> dict[str, Any]:
        """Facts about the data for the run's record (sizes, tokens, entropy); after `prepare`. Where the data decides
        what an id means, `TOKENS` is a digest of it."""
        return {}

"""Evaluation on the validation and test splits, and samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from chimeralab.contracts import Batch, Evaluation, Probe, Task, Told
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab.metrics import POSITION
from chimeralab.runs.spec import TrainSpec
from chimeralab.stack.model import StackModel

MOST_BUCKETS = 32


@contextmanager
def inference(model: StackModel) -> Iterator[None]:
    """Evaluation mode without gradients; the training mode and torch's random state come back afterwards."""
    training, state = model.training, torch.get_rng_state()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        torch.set_rng_state(state)


def evaluate(
    model: StackModel,
    task: Task,
    *,
    batches: int,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    split: Split = "validation",
    by_position: bool = False,
) -> dict[str, float]:
    """The task's metrics over at most `batches` batches of a split, computed in `dtype`.

    With `by_position` each of them also over the targets of each bucket of positions, as `loss@position=128`.
    """
    available = task.evaluation_steps(batch_size, split)
    buckets = position_buckets(task.sequence_length) if by_position else []
    sums = [Evaluation() for _ in buckets]
    total = Evaluation()
    with inference(model), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for step in range(min(batches, available) if available else batches):
            batch = task.batch(split, step, batch_size).to(device)
            logits, _ = model(batch.inputs, told=batch.told)
            total = total + task.measure(logits, batch)
            for index, (start, stop) in enumerate(buckets):
                part = Batch(batch.inputs[:, start:stop], batch.targets[:, start:stop])
                sums[index] += task.measure(logits[:, start:stop], part)
    found = task.metrics(total)
    for (_, stop), part_sum in zip(buckets, sums, strict=True):
        if part_sum.targets:
            for name, value in task.metrics(part_sum).items():
                found[f"{name}{',' if '@' in name else '@'}{POSITION}={stop}"] = value
    return found


def measure_test(
    model: StackModel, task: Task, trained: Task, train: TrainSpec, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Metrics of a task's test split, for a model `trained` on another or the same.

    Where sequences are longer than in training, a batch holds fewer of them, so that it has no more tokens, and there
    are more batches than `eval_batches`: as many as give the same number of sequences, but four times as many at most.

    Raises:
        LabError: the model cannot take sequences of this length.
    """
    if model.room is not None and model.room < task.sequence_length:
        raise SpecError(f"learned positions for {model.room} tokens, and sequences of {task.sequence_length}")
    size = min(train.batch_size, train.batch_size * trained.sequence_length // task.sequence_length) or 1
    found = evaluate(
        model,
        task,
        batches=train.eval_batches * min(4, math.ceil(train.batch_size / size)),
        batch_size=size,
        device=device,
        dtype=dtype,
        split="test",
        by_position=task.by_position,
    )
    return found | probe(model, task, "test", device, dtype).metrics


def probe(model: StackModel, task: Task, split: Split, device: torch.device, dtype: torch.dtype) -> Probe:
    """What the task asks of the model besides its batches."""

    def predict(inputs: Tensor, told: Told | None = None) -> Tensor:
        batch = Batch(inputs, inputs.new_empty(0), told).to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            return model(batch.inputs, told=batch.told)[0].float().cpu()

    with inference(model):
        return task.probe(predict, split) or Probe()


def position_buckets(length: int) -> list[tuple[int, int]]:
    """Ranges of positions, from 0: the first three are single tokens, then each octave has two, or one if there
    would be more than 32.

    >>> position_buckets(10)
    [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 10)]
    """
    powers = [2**n for n in range(length.bit_length())]
    ends = sorted({*powers, *(3 * power for power in powers)})
    if sum(end < length for end in ends) >= MOST_BUCKETS:
        ends = powers
    ends = [*(end for end in ends if end < length), length]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def generate(model: StackModel, prompt: Tensor, tokens: int, *, temperature: float = 0.8, seed: int = 0) -> Tensor:
    """Continue `prompt` (T,) by `tokens` tokens, decoding by state; returns the new tokens (tokens,).

    A model with learned positions writes no further than they go.
    """
    if model.room is not None:
        tokens = max(0, min(tokens, model.room - len(prompt)))
    device = model.embedding.weight.device
    draws = torch.Generator().manual_seed(seed)
    with inference(model):
        state = model.init_state(1, len(prompt) + tokens)
        logits, state = model(prompt.to(device).unsqueeze(0), state)
        scores = logits[:, -1]
        written = []
        for _ in range(tokens):
            odds = torch.softmax(scores.float().cpu() / temperature, -1)
            token = torch.multinomial(odds, 1, generator=draws).squeeze(1)
            written.append(token)
            scores, state = model.step(token.to(device), state)
    return torch.cat(written) if written else prompt.new_empty(0)

"""Evaluation on the validation split, and samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from chimeralab.contracts import Evaluation, Task
from chimeralab.stack.model import StackModel


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
) -> dict[str, float]:
    """The task's metrics over at most `batches` batches of the validation split, computed in `dtype`."""
    available = task.evaluation_steps(batch_size)
    total = Evaluation()
    with inference(model), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for step in range(min(batches, available) if available else batches):
            batch = task.batch("validation", step, batch_size).to(device)
            logits, _ = model(batch.inputs, told=batch.told)
            total = total + task.measure(logits, batch)
    return task.metrics(total)


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

"""Speed and memory of a trained model: training step, prefill and decode, over context lengths."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils import _pytree as pytree

from chimeralab.contracts import Task
from chimeralab.events import Profile
from chimeralab.runs.device import PeakMemory, synchronize
from chimeralab.runs.evaluate import inference
from chimeralab.runs.spec import ProfileSpec, TrainSpec
from chimeralab.stack.model import StackModel

REPEATS = 3


def profile_training(
    model: StackModel, task: Task, train: TrainSpec, device: torch.device, dtype: torch.dtype
) -> Profile:
    """Forward and backward of one batch; the weights are left as they are."""
    batch = task.batch("train", 0, train.batch_size).to(device)
    memory = PeakMemory(device)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model.loss(batch.inputs, batch.targets, told=batch.told)
        loss.backward()
        model.zero_grad(set_to_none=True)

    seconds = _median(step, device)
    T, size = batch.inputs.shape[1], train.batch_size
    values = {
        "step_ms": 1e3 * seconds,
        "tokens_per_second": size * T / seconds,
        **_peak(memory),
    }
    return Profile(name="train", context=T, batch=size, values=values)


def profile_decoding(
    model: StackModel, spec: ProfileSpec, device: torch.device, dtype: torch.dtype
) -> Iterator[Profile]:
    """Prefill of each context, then decoding after it. The model is cast to `dtype` and stays so.

    Contexts beyond a model's learned positions are measured as the longest that it can take.
    """
    model.to(dtype)
    longest = model.room - spec.decode_tokens if model.room is not None else max(spec.contexts, default=0)
    for context in dict.fromkeys(min(context, longest) for context in spec.contexts if longest > 0):
        prompt = torch.randint(model.vocab_size, (spec.batch_size, context), device=device)
        with inference(model):
            yield from _at(model, prompt, spec.decode_tokens, device)


def _at(model: StackModel, prompt: torch.Tensor, tokens: int, device: torch.device) -> Iterator[Profile]:
    B, L = prompt.shape
    memory = PeakMemory(device)

    def prefill() -> list:
        return model(prompt, model.init_state(B, L + tokens))[1]

    seconds = _median(prefill, device)
    state = prefill()
    held = sum(t.nbytes for t in pytree.tree_leaves(state) if isinstance(t, torch.Tensor)) // B
    values = {
        "prefill_ms": 1e3 * seconds,
        "tokens_per_second": B * L / seconds,
        **_peak(memory),
    }
    yield Profile(name="prefill", context=L, batch=B, values=values)

    memory = PeakMemory(device)
    token, times = prompt[:, -1], []
    for _ in range(tokens):
        synchronize(device)
        start = time.perf_counter()
        logits, state = model.step(token, state)
        token = logits.argmax(-1)
        synchronize(device)
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    values = {
        "decode_ms": 1e3 * median,
        "tokens_per_second": B / median,
        "state_bytes": held,
        **_peak(memory),
    }
    yield Profile(name="decode", context=L, batch=B, values=values)


def _peak(memory: PeakMemory) -> dict[str, float]:
    """Of a GPU alone: a process that has trained before already holds the pages that this takes on a CPU."""
    return {"peak_memory_bytes": memory.bytes()} if memory.device.type == "cuda" else {}


def _median(work: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a few calls, after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)

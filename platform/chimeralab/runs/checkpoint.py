"""Checkpoints: safetensors and JSON in one folder a step, written aside and renamed when complete.

A folder named `step-…` is complete, whatever was killed when. Nothing in it is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chimeralab.errors import DataError, RunFailed
from chimeralab.stack.model import StackModel
from chimeralab.stack.weights.saved import STACK, tensors_of


@dataclass
class Position:
    """Where a run stands, beside its weights: enough to go on as if nothing had happened."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # seen
    seconds: float = 0.0  # spent training, over all attempts
    best: float | None = None  # best value of the task's metric
    best_step: int = -1
    evaluations_since_best: int = 0
    last_evaluation: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # what the task said of its data


def save(folder: Path, model: StackModel, optimizer: torch.optim.Optimizer, position: Position) -> Path:
    """Write `folder/step-00000100`; atomic, and durable when it returns.

    Raises:
        RunFailed: the disk does not take it. What was written of it is removed, since others need the room.
    """
    target = folder / f"step-{position.step:08d}"
    if target.exists():
        return target
    scratch = folder / f".{target.name}.{os.getpid()}"
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _write(scratch, model, optimizer, position)
        scratch.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        remedy = "Make room, or let who runs this write there; resumed, the run goes on from the checkpoint before"
        raise RunFailed(f"cannot be written: {error}", place=f"checkpoint {target}", remedy=remedy) from error
    return target


def _write(scratch: Path, model: StackModel, optimizer: torch.optim.Optimizer, position: Position) -> None:
    state, layout = _flatten(optimizer.state_dict())
    # tied weights are one tensor: named_parameters lists it once, which is how safetensors wants it
    save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, scratch / "model.safetensors")
    save_file(tensors_of(model)[1], scratch / "buffers.safetensors")
    save_file(state, scratch / "optimizer.safetensors")
    save_file(_random_states(), scratch / "random.safetensors")
    (scratch / STACK).write_text(model.spec.model_dump_json(indent=2))
    (scratch / "position.json").write_text(json.dumps({"position": asdict(position), "optimizer": layout}))
    for path in (*scratch.iterdir(), scratch):
        _sync(path)


def load(path: Path, model: StackModel, optimizer: torch.optim.Optimizer) -> Position:
    """Put weights, optimizer and random states back, in place.

    Raises:
        DataError: the folder is missing, damaged or of another model.
    """
    with _reading(path):
        saved = json.loads((path / "position.json").read_text())
        state = _unflatten(load_file(path / "optimizer.safetensors"), saved["optimizer"])
        random_states = load_file(path / "random.safetensors")
        position = Position(**saved["position"])
        load_weights(path, model)
        optimizer.load_state_dict(state)
        _restore_random_states(random_states)
    return position


def load_weights(path: Path, model: StackModel) -> None:
    """Put the weights of a checkpoint into a model of the same stack.

    Raises:
        DataError: the folder is missing, damaged or of another model, which then stays as it is.
    """
    with _reading(path):
        saved = load_file(path / "model.safetensors") | load_file(path / "buffers.safetensors")
    parameters, buffers = tensors_of(model)
    own = parameters | buffers
    for name in sorted(own.keys() | saved.keys()):
        if name not in own or name not in saved or own[name].shape != saved[name].shape:
            raise DataError(f"it is of another stack: {name!r}", place=f"checkpoint {path.name}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"cannot be read: {error}", place=f"checkpoint {path.name}") from error


def clear(run: Path, named: Iterable[Path]) -> None:
    """Remove what the earlier attempts of a run left, whole or half written, but for what the store names.

    Each attempt writes in a folder of its own. One that was given up may still be writing there: it disturbs nobody.
    """
    kept = {path.parts[-3:] for path in named}  # the lab's folder may have been moved
    for left in run.glob("attempt-*/checkpoints/*"):
        if left.parts[-3:] not in kept:
            shutil.rmtree(left, ignore_errors=True)


def size(path: Path) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in path.iterdir())


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and a JSON rest."""
    tensors = {
        f"{index}.{key}": value.contiguous()
        for index, entry in state["state"].items()
        for key, value in entry.items()
        if isinstance(value, Tensor)
    }
    groups = [
        {key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"param_groups": groups}


def _unflatten(tensors: dict[str, Tensor], layout: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": layout["param_groups"]}


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Training speed of a stack on this machine's GPU, by the trainer: with the best kernels, or pinned to a tier.

    python benchmarks/train.py [PATTERN] [--width N] [--tier torch] [--compile]

Tokens are drawn from 32,000 ids, small ones more often, so that the head is as large as a language model's and the
loss falls. There are no checkpoints and no evaluation. The last line is JSON: tokens/s and utilisation (of a matrix
product on the device) in the last quarter of the steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from chimeralab import RunSpec, StackSpec, ops, parse
from chimeralab.contracts import Batch, Task
from chimeralab.contracts.task import Split, TaskConfig
from chimeralab.events import Event, Metrics
from chimeralab.runs import device as devices
from chimeralab.runs.sink import Listing
from chimeralab.runs.spec import Resources, TrainSpec
from chimeralab.runs.trainer import Trainer
from chimeralab.stack.build import build

HYBRID = "every(3, attention, offset=2, base=mamba2) x18"


class DrawnConfig(TaskConfig):
    tokens: int = 2048


class Drawn(Task):
    """Independent tokens: id n is the more frequent the smaller it is."""

    name = "drawn"
    Config = DrawnConfig
    config: DrawnConfig
    vocab_size = 32000

    def check(self) -> None:
        pass

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        pass

    @property
    def sequence_length(self) -> int:
        return self.config.tokens

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        draws = torch.Generator().manual_seed(seed + step)
        ids = (torch.rand(size, self.sequence_length + 1, generator=draws) ** 4 * self.vocab_size).long()
        return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())


class Printing(Listing):
    def emit(self, event: Event) -> int:
        if isinstance(event, Metrics) and "train/loss" in event.values:
            values = event.values
            rate, used = values["train/tokens_per_second"], values["train/flops_utilisation"]
            print(f"step {event.step}: loss {values['train/loss']:.3f}, {rate:,.0f} tokens/s, {used:.1%}", flush=True)
        return super().emit(event)


class Untold(Trainer):
    """Without checkpoints and evaluations."""

    def save(self, role: str) -> None:
        pass

    def evaluate(self, rate: float) -> None:
        pass

    def test(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default=HYBRID)
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument("--tokens", type=int, default=2048, help="of a sequence")
    parser.add_argument("--batch", type=int, default=8, help="sequences")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tier", help="pin every op that has it to this tier")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    print(json.dumps(measure(options)), flush=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    pins = {op: options.tier for op in ops.OPS if any(kernel.tier == options.tier for kernel in ops.kernels(op))}
    quiet = 10**9
    recipe = TrainSpec(
        steps=options.steps,
        batch_size=options.batch,
        compile=options.compile,
        log_every=max(1, options.steps // 4),
        eval_every=quiet,
        checkpoint_every=quiet,
        lr=3e-4,
        warmup_steps=10,
    )
    spec = RunSpec(
        stack=StackSpec(layers=parse(options.pattern), d_model=options.width),
        train=recipe,
        kernels=pins,
        resources=Resources(gpus=1),
    )
    device = devices.pick(spec.resources.gpus)
    torch.set_float32_matmul_precision("high")
    with tempfile.TemporaryDirectory() as folder, ops.pin(spec.kernels):
        task = Drawn(DrawnConfig(tokens=options.tokens))
        model = build(spec.stack, task.vocab_size, device=device, seed=spec.seed)
        sink, start = Printing(), time.perf_counter()
        Untold(spec, model, task, device, Path(folder), sink).run()
    values = [event.values for event in sink.events if isinstance(event, Metrics)]
    return {
        "pattern": options.pattern,
        "width": options.width,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tier": options.tier or "best",
        "compile": options.compile,
        "batch": options.batch,
        "tokens_per_second": round(values[-1]["train/tokens_per_second"]),
        "flops_utilisation": round(values[-1]["train/flops_utilisation"], 4),
        "peak_gib": round(values[-1]["train/peak_memory_bytes"] / 2**30, 1),
        "loss": round(values[-1]["train/loss"], 4),
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    main()

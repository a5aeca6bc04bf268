"""The one trainer. It reads top to bottom: set up, then step, log, evaluate, save, until done."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from chimeralab.contracts import Batch, Cost, Task
from chimeralab.errors import LabError, RunFailed
from chimeralab.events import Log, Metrics, Progress, Sample
from chimeralab.metrics import parse, parse_axes
from chimeralab.runs import checkpoint
from chimeralab.runs.checkpoint import Position
from chimeralab.runs.device import PeakMemory, matmul_rate, precision
from chimeralab.runs.evaluate import evaluate, generate, measure_test, probe
from chimeralab.runs.graphed import GraphedStep
from chimeralab.runs.optimizer import adamw, learning_rate, set_learning_rate
from chimeralab.runs.retention import Retention
from chimeralab.runs.sink import Sink
from chimeralab.runs.spec import RunSpec
from chimeralab.stack.cost import embedding_and_head, stack_cost
from chimeralab.stack.model import StackModel

PROGRESS_SECONDS = 0.5


class Cancelled(Exception):
    """The sink asked the run to stop; its newest checkpoint was written if its weights were finite."""


@dataclass
class Trainer:
    """Trains `model` on `task` as `spec.train` says, into `folder`, telling `sink`.

    The batch at a step depends on the seed and the step alone, and a checkpoint holds everything else, so that a
    resumed run on a CPU repeats the undisturbed one bit for bit.
    """

    spec: RunSpec
    model: StackModel
    task: Task
    device: torch.device
    folder: Path
    sink: Sink
    tests: Mapping[str, Task] = field(default_factory=dict)  # the task's evaluation sets, prepared

    def __post_init__(self) -> None:
        self.train = self.spec.train
        self.dtype = precision(self.train.precision, self.device)
        self.optimizer = adamw(self.model, self.train)
        self.model.set_dropout(self.train.dropout)
        torch.manual_seed(self.spec.seed)  # of dropout; a checkpoint brings back its own state
        self.position = Position(data=self.task.describe())
        self.retention = Retention(self.sink)
        self.compute_loss = torch.compile(self.model.loss, fullgraph=True) if self.train.compile else self.model.loss
        self.step_tokens = self.train.batch_size * self.train.accumulate * self.task.sequence_length
        cost = Cost.total([stack_cost(self.spec.stack), *embedding_and_head(self.spec.stack, **self.task.ends)])
        self.flops_per_token = cost.train_flops(self.task.sequence_length)
        self.graphed: GraphedStep | None = None
        self._last_progress = 0.0

    def resume(self, path: Path, best: Path | None = None) -> None:
        """Go on from a checkpoint instead of from the start; `best` is the best one so far."""
        data = self.position.data
        self.position = checkpoint.load(path, self.model, self.optimizer)
        if self.position.data != data:
            told = f"the data has changed since {path.name}: the curve is no longer that of one run"
            self.sink.emit(Log(level="warning", message=told))
            self.position.data = data
        self.retention.adopt("newest", path)
        if best is not None:
            self.retention.adopt("best", best)

    def run(self) -> Position:
        """Train to the last step, or until patience runs out.

        Raises:
            RunFailed: the loss is not finite.
            Cancelled: the sink asked to stop.
        """
        peak = matmul_rate(self.device, self.dtype)
        memory = PeakMemory(self.device)
        self.model.train()
        start, window_start, window_step = time.perf_counter(), time.perf_counter(), self.position.step
        before = self.position.seconds
        loss = norm = torch.zeros(())  # of the last step that was taken here
        with ThreadPoolExecutor(1, "batches") as reader:
            coming = reader.submit(self.batches, self.position.step)
            while self.position.step < self.train.steps and not self.enough():
                if self.sink.stop_requested():
                    self.stop(loss, norm)
                step = self.position.step
                batches = coming.result()
                if step + 1 < self.train.steps:
                    coming = reader.submit(self.batches, step + 1)
                loss, norm = self.optimizer_step(step, batches)

                done = self.position.step = step + 1
                self.position.tokens += self.step_tokens
                last = done == self.train.steps
                logged = done % self.train.log_every == 0 or done == 1 or last
                evaluated = done % self.train.eval_every == 0 or last
                saved = done % self.train.checkpoint_every == 0 or last
                if logged or evaluated or saved:
                    self.guard(done, loss, norm)
                now = time.perf_counter()
                self.position.seconds = before + now - start
                rate = (done - window_step) * self.step_tokens / max(now - window_start, 1e-9)
                if logged:
                    values = {"train/loss": float(loss), "train/gradient_norm": float(norm)}
                    values["train/learning_rate"] = learning_rate(step, self.train)
                    values["train/tokens_per_second"] = rate
                    values["train/flops_utilisation"] = rate * self.flops_per_token / peak
                    values["train/peak_memory_bytes"] = memory.bytes()
                    self.emit_metrics(values)
                    window_start, window_step = now, done
                self.emit_progress(rate, last)
                if evaluated:
                    self.evaluate(rate)
                if saved:
                    self.save("newest")
                if evaluated or saved:  # neither counts as training time in the next window
                    pause = time.perf_counter() - now
                    window_start += pause
                    start += pause
        if (why := self.enough()) and self.position.step < self.train.steps:
            self.save("newest")
            self.sink.emit(Log(message=f"{why}: stopped at step {self.position.step}"))
        self.test()
        return self.position

    def optimizer_step(self, step: int, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss (mean over the micro-batches) and gradient norm before clipping."""
        if self.graphed is None and self.train.cuda_graph:
            self.graphed = GraphedStep(self.take_step, self.optimizer)
        set_learning_rate(self.optimizer, learning_rate(step, self.train))
        moved = [batch.to(self.device) for batch in batches]
        return (self.graphed or self.take_step)(moved)

    def take_step(self, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros((), device=self.device)
        for batch in batches:
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                loss = self.compute_loss(batch.inputs, batch.targets, told=batch.told)
            (loss / len(batches)).backward()
            total += loss.detach() / len(batches)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm

    def batches(self, step: int) -> list[Batch]:
        n, size = self.train.accumulate, self.train.batch_size
        found = [self.task.batch("train", step * n + i, size, seed=self.spec.seed) for i in range(n)]
        if self.device.type == "cuda":
            return [batch.map(torch.Tensor.pin_memory) for batch in found]
        return found

    def guard(self, step: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """A loss or gradient that is not finite ends the run, before it reaches a checkpoint."""
        if _finite(loss, norm):
            return
        self.emit_metrics({"train/loss": float(loss), "train/gradient_norm": float(norm)})
        raise RunFailed(
            f"the loss is {float(loss)} and the gradient norm {float(norm)}",
            place=f"step {step}",
            remedy="Lower lr, raise warmup_steps, or train in float32; the last checkpoint is from before",
        )

    def stop(self, loss: torch.Tensor, norm: torch.Tensor) -> NoReturn:
        """End before the next step; a step between two guards may have spoilt the weights."""
        if _finite(loss, norm):
            self.save("newest")
        raise Cancelled

    def evaluate(self, rate: float) -> None:
        """Measure the validation split, remember the best, write samples."""
        self.emit_progress(rate, force=True, phase="evaluate")
        metrics = evaluate(
            self.model,
            self.task,
            batches=self.train.eval_batches,
            batch_size=self.train.batch_size,
            device=self.device,
            dtype=self.dtype,
        )
        probed = probe(self.model, self.task, "validation", self.device, self.dtype)
        metrics |= probed.metrics
        self.emit_metrics({f"validation/{name}": value for name, value in metrics.items()})
        position = self.position
        position.last_evaluation = metrics
        value = metrics[self.task.metric]
        sign = 1 if self.task.higher_is_better else -1
        if not math.isnan(value) and (position.best is None or sign * value > sign * position.best):
            position.best, position.best_step, position.evaluations_since_best = value, position.step, 0
            self.save("best")
        else:
            position.evaluations_since_best += 1
        for drawn in probed.drawn:
            image = base64.b64encode(drawn.image).decode()
            self.sink.emit(Sample(step=position.step, prompt=drawn.prompt, text=drawn.text, image=image))
        if self.train.sample_tokens:
            for index, prompt in enumerate(self.task.prompts()):
                written = generate(self.model, prompt, self.train.sample_tokens, seed=self.spec.seed + index)
                text, start = self.task.decode(written), self.task.decode(prompt)
                self.sink.emit(Sample(step=position.step, prompt=start, text=text))

    def test(self) -> None:
        """Measure the test split and the evaluation sets, with the weights of the last step.

        A run that is resumed after its last step does so again, and finds the same.
        """
        own = {"": self.task} if "test" in self.task.splits else {}
        for place, task in {**own, **self.tests}.items():
            if self.sink.stop_requested():
                raise Cancelled
            self.emit_progress(0.0, force=True, phase="test")
            try:
                found = measure_test(self.model, task, self.task, self.train, self.device, self.dtype)
                axes = parse_axes(place)
                values = {str(parse(f"test/{name}").at(axes)): value for name, value in found.items()}
            except (LabError, torch.OutOfMemoryError) as error:
                told = str(error).splitlines()[0]
                self.sink.emit(Log(level="warning", message=f"not tested at {place or 'the test split'}: {told}"))
                continue
            self.emit_metrics(values)

    def save(self, role: str) -> None:
        if self.sink.stale:
            return  # nobody would ever delete it
        path = checkpoint.save(self.folder / "checkpoints", self.model, self.optimizer, self.position)
        metrics = {f"validation/{k}": v for k, v in self.position.last_evaluation.items()}
        self.retention.announce(role, path, self.position.step, checkpoint.size(path), metrics)
        self.retention.prune()

    def enough(self) -> str:
        """Why to stop before the last step; "" while there is no reason."""
        metric, position, goal = self.task.metric, self.position, self.train.stop_at
        if 0 < self.train.patience <= position.evaluations_since_best:
            return f"no better {metric} in {self.train.patience} evaluations"
        sign = 1 if self.task.higher_is_better else -1
        if goal is not None and position.last_evaluation and sign * position.last_evaluation[metric] >= sign * goal:
            return f"{metric} is as good as {goal:g}"
        return ""

    def emit_metrics(self, values: dict[str, float]) -> None:
        at = self.position
        self.sink.emit(Metrics(step=at.step, tokens=at.tokens, seconds=at.seconds, values=values))

    def emit_progress(self, rate: float, force: bool = False, phase: str = "train") -> None:
        now = time.monotonic()
        if force or now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            at, total = self.position, self.train.steps
            self.sink.emit(Progress(step=at.step, total=total, seconds=at.seconds, tokens_per_second=rate, phase=phase))


def _finite(loss: torch.Tensor, norm: torch.Tensor) -> bool:
    return math.isfinite(float(loss)) and math.isfinite(float(norm))

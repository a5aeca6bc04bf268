"""The conformance suite of a task."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from chimeralab.contracts.task import IGNORE, Batch, Evaluation, Split, Task
from chimeralab.testing.conformance import Conformance, Finding, require, require_form

SPLITS: tuple[Split, ...] = ("train", "validation")  # a test split is not for every task to have


class TaskConformance(Conformance):
    """Subclass it and set `task` and, where the defaults do not do, `options` (short sequences, small files)."""

    task: ClassVar[type[Task]]
    options: ClassVar[dict[str, Any]] = {}
    size: ClassVar[int] = 4  # sequences in a batch

    def test_config_draws_a_form(self) -> None:
        require_form(self.task.Config)

    def test_vocabulary_is_known_before_the_data(self) -> None:
        task = self.task(self.task.Config(**self.options))
        task.check()
        require(task.vocab_size >= 2, f"vocab_size is {task.vocab_size} before prepare: the model is built from it")

    def test_batches_have_their_shape_and_range(self) -> None:
        task = self.prepared
        for split in SPLITS:
            batch = task.batch(split, 0, self.size)
            shape = (self.size, task.sequence_length)
            for what, tokens in (("inputs", batch.inputs), ("targets", batch.targets)):
                place = f"{what} of split {split}"
                require(tuple(tokens.shape) == shape, f"{place} have shape {tuple(tokens.shape)}, not {shape}")
                require(tokens.dtype == torch.int64, f"{place} are {tokens.dtype}, not int64")
            inside = (batch.inputs >= 0) & (batch.inputs < task.vocab_size)
            require(bool(inside.all()), f"inputs of split {split} leave the vocabulary of {task.vocab_size}")
            wanted = batch.targets[batch.targets != IGNORE]
            inside = (wanted >= 0) & (wanted < task.vocab_size)
            require(bool(inside.all()), f"targets of split {split} are neither tokens nor IGNORE")
            require(len(wanted) > 0, f"no target of split {split} is counted: there is nothing to learn")

    def test_a_batch_depends_on_its_arguments_alone(self) -> None:
        first = self.prepared.batch("train", 3, self.size, seed=5, rank=1)
        torch.rand(7)
        self.prepared.batch("train", 9, self.size)
        again = self.prepared.batch("train", 3, self.size, seed=5, rank=1)
        require(_same(first, again), "two calls of batch with the same arguments differ: resumed runs would too")
        with tempfile.TemporaryDirectory() as cache:
            other = self._prepare(Path(cache)).batch("train", 3, self.size, seed=5, rank=1)
        require(_same(first, other), "a second instance gives another batch: something is kept or drawn outside")

    def test_each_argument_changes_the_batch(self) -> None:
        start: dict[str, int] = {"step": 0, "seed": 0, "rank": 0}
        first = self.prepared.batch("train", size=self.size, **start)
        for what in start:
            other = self.prepared.batch("train", size=self.size, **{**start, what: 1})
            require(not _same(first, other), f"another {what} gives the same training batch")

    def test_batch_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        self.prepared.batch("train", 0, self.size)
        require(
            torch.equal(before, torch.get_rng_state()),
            "batch draws from torch's global generator: make one from (seed, split, step, rank)",
        )

    def test_preparing_twice_is_harmless(self) -> None:
        with tempfile.TemporaryDirectory() as cache:
            first = self._prepare(Path(cache)).batch("validation", 0, self.size)
            again = self._prepare(Path(cache)).batch("validation", 0, self.size)
        require(_same(first, again), "a second prepare in the same cache changes the data")

    def test_evaluations_add_up(self) -> None:
        task = self.prepared
        batch = task.batch("validation", 0, self.size)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(*batch.inputs.shape, task.vocab_size, generator=generator)
        whole = task.metrics(task.measure(logits, batch))
        parts = Evaluation()
        for row in range(self.size):
            rows = slice(row, row + 1)
            parts += task.measure(logits[rows], Batch(batch.inputs[rows], batch.targets[rows]))
        for name, value in task.metrics(parts).items():
            require(
                abs(value - whole[name]) <= 1e-4 * max(1.0, abs(whole[name])),
                f"metric {name!r} is {whole[name]:.6g} of a batch and {value:.6g} of its rows: put sums in Evaluation",
            )
        require(self.task.metric in whole, f"metric {self.task.metric!r} is not among {', '.join(whole)}")

    def test_prompts_are_tokens(self) -> None:
        task = self.prepared
        for prompt in task.prompts():
            inside = (prompt >= 0) & (prompt < task.vocab_size)
            require(prompt.ndim == 1 and bool(inside.all()), "a prompt must be a vector of tokens")
            require(isinstance(task.decode(prompt), str), "decode must give a string")

    @cached_property
    def prepared(self) -> Task:
        self._cache = tempfile.TemporaryDirectory()  # lives as long as the task that may read from it
        return self._prepare(Path(self._cache.name))

    def _prepare(self, cache: Path) -> Task:
        task = self.task(self.task.Config(**self.options))
        task.check()
        task.prepare(cache)
        return task


def _same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


def check_task(task: type[Task], options: dict[str, Any] | None = None) -> list[Finding]:
    """Run every check on a task; none is raised."""
    return TaskConformance.of(task=task, options=options or {}).run()

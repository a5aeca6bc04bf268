"""The conformance suite of a task."""

from __future__ import annotations

import tempfile
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from chimeralab.contracts.task import IGNORE, Batch, Evaluation, Task
from chimeralab.errors import SpecError
from chimeralab.metrics import parse, parse_axes
from chimeralab.testing.conformance import Conformance, Finding, require, require_form

WIDTH = 16  # of the hidden states that a readout is tried on


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
        if task.input_features is None:
            require(task.vocab_size >= 2, f"vocab_size is {task.vocab_size} before prepare: the model is built from it")
        else:
            require(
                task.input_features >= 1, f"input_features is {task.input_features}: a place holds a number or more"
            )
            require(task.readout is not None, "inputs are numbers: readout must say what is asked of them")

    def test_batches_have_their_shape_and_range(self) -> None:
        task = self.prepared
        for split in task.splits:
            batch = task.batch(split, 0, self.size)
            tokens = (self.size, task.sequence_length)
            if task.input_features is None:
                _require_form(f"inputs of split {split}", batch.inputs, tokens, torch.int64)
                inside = (batch.inputs >= 0) & (batch.inputs < task.vocab_size)
                require(bool(inside.all()), f"inputs of split {split} leave the vocabulary of {task.vocab_size}")
            else:
                _require_form(f"inputs of split {split}", batch.inputs, (*tokens, task.input_features), torch.float32)
                require(bool(batch.inputs.isfinite().all()), f"inputs of split {split} are not finite")
            if task.readout is None:
                _require_form(f"targets of split {split}", batch.targets, tokens, torch.int64)
                wanted = batch.targets[batch.targets != IGNORE]
                inside = (wanted >= 0) & (wanted < task.vocab_size)
                require(bool(inside.all()), f"targets of split {split} are neither tokens nor IGNORE")
                require(len(wanted) > 0, f"no target of split {split} is counted: there is nothing to learn")

    def test_what_is_told_fits(self) -> None:
        task = self.prepared
        for split in task.splits:
            told = task.batch(split, 0, self.size).told
            require((told is not None) == task.tells, f"a batch of split {split} and the task's `tells` disagree")
            if told is None:
                continue
            _require_form(f"levels told in split {split}", told.levels, (self.size,), torch.float32)
            require(bool(((told.levels >= 0) & (told.levels <= 1)).all()), "a level told is not within 0 … 1")
            if told.classes is not None:
                _require_form(f"classes told in split {split}", told.classes, (self.size,), torch.int64)
                inside = (told.classes >= 0) & (told.classes <= task.classes)
                require(bool(inside.all()), f"a class told is not within 0 … {task.classes} (not told)")

    def test_readout_is_costed_and_learns(self) -> None:
        task = self.prepared
        if task.readout is None:
            return
        torch.manual_seed(0)
        readout = task.readout(WIDTH)
        batch, T = task.batch("train", 0, self.size), task.sequence_length
        for parameter in readout.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        h = torch.randn(self.size, T, WIDTH, requires_grad=True)
        loss = readout.loss(h, batch.targets)
        require(loss.ndim == 0 and bool(loss.isfinite()), f"the loss of random states is {loss}, not a finite number")
        loss.backward()
        require(h.grad is not None and bool((h.grad != 0).any()), "the loss does not depend on the hidden states")
        cost, params = readout.cost(), sum(parameter.numel() for parameter in readout.parameters())
        require(cost.params == params, f"the readout declares {cost.params} parameters and has {params}")
        grouped = sum(parameter.numel() for group in readout.param_groups() for parameter in group.params)
        require(grouped == params, f"the readout's groups hold {grouped} of its {params} parameters")
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            readout(h)
        declared, found = cost.prefill_flops(T) * T * self.size, counted.get_total_flops()
        require(abs(declared - found) <= 0.02 * found, f"the readout declares {declared:.6g} FLOPs and does {found}")

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

    def test_splits_differ(self) -> None:
        for a, b in combinations(self.prepared.splits, 2):
            one, other = (self.prepared.batch(split, 0, self.size) for split in (a, b))
            require(not _same(one, other), f"split {b} begins with the batch of split {a}")

    def test_evaluation_sets_are_of_this_vocabulary(self) -> None:
        task = self.prepared
        for place, other in task.evaluation_sets().items():
            require(bool(parse_axes(place)), "an evaluation set has no name: say where it is, such as length=512")
            require("test" in other.splits, f"the evaluation set {place} has no test split to be measured on")
            require(
                other.vocab_size == task.vocab_size,
                f"the evaluation set {place} has {other.vocab_size} ids, and the task {task.vocab_size}",
            )
            other.check()

    def test_positions_are_measured_alike(self) -> None:
        task = self.prepared
        if not task.by_position:
            return
        batch = task.batch("validation", 0, self.size)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(*batch.inputs.shape, task.vocab_size, generator=generator)
        whole, parts = task.measure(logits, batch), Evaluation()
        for at in range(task.sequence_length):
            place = slice(at, at + 1)
            parts += task.measure(logits[:, place], Batch(batch.inputs[:, place], batch.targets[:, place]))
        require(
            parts.targets == whole.targets and abs(parts.loss - whole.loss) <= 1e-4 * max(1.0, whole.loss),
            "by_position: the positions of a batch, measured one by one, do not add up to the batch",
        )

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
        if task.readout is None:
            logits = torch.randn(*batch.inputs.shape, task.vocab_size, generator=generator)
        else:
            torch.manual_seed(0)
            with torch.no_grad():
                readout, h = task.readout(WIDTH), torch.randn(self.size, task.sequence_length, WIDTH)
                logits = readout(h)
        whole = task.metrics(task.measure(logits, batch))
        parts = Evaluation()
        for row in range(self.size):
            rows = slice(row, row + 1)
            parts += task.measure(logits[rows], batch.map(partial(_rows, rows)))
        for name, value in task.metrics(parts).items():
            require(
                abs(value - whole[name]) <= 1e-4 * max(1.0, abs(whole[name])),
                f"metric {name!r} is {whole[name]:.6g} of a batch and {value:.6g} of its rows: put sums in Evaluation",
            )
        for name in whole:
            try:
                parse(f"validation/{name}")
            except SpecError as error:
                require(False, f"metric {name!r} cannot be told by axes: {error.remedy}")
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


def _rows(rows: slice, tensor: Tensor) -> Tensor:
    return tensor[rows]


def _same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a.tensors(), b.tensors(), strict=True))


def _require_form(place: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    require(tuple(tensor.shape) == shape, f"{place} have shape {tuple(tensor.shape)}, not {shape}")
    require(tensor.dtype == dtype, f"{place} are {str(tensor.dtype).removeprefix('torch.')}, not {dtype}")


def check_task(task: type[Task], options: dict[str, Any] | None = None) -> list[Finding]:
    """Run every check on a task; none is raised."""
    return TaskConformance.of(task=task, options=options or {}).run()

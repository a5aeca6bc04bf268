"""The suite finds what is broken on purpose, and says what to mend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Batch, Cost, FeedForward, Mixer, MixerConfig, Task
from chimeralab.contracts import Evaluation, FeedForwardConfig, Readout, Regression, Told
from chimeralab.testing import FeedForwardConformance, MixerConformance, TaskConformance, check_mixer, check_task


class AverageState(NamedTuple):
    total: Tensor  # B D
    count: Tensor  # 0-dim


class Average(Mixer):
    """y_t = W mean(x_1 … x_t): the smallest mixer that keeps every rule."""

    name = "average"
    summary = "Mean of the tokens so far"
    Config = MixerConfig

    def __init__(self, config: MixerConfig, d_model: int, *args: Any) -> None:
        super().__init__(config, d_model, *args)
        self.map = nn.Linear(d_model, d_model, bias=False)

    @classmethod
    def cost(cls, config: MixerConfig, d_model: int) -> Cost:
        return Cost.linear(d_model, d_model) + Cost.state(lambda _: d_model, accumulator=True)

    def init_state(self, batch: int, max_length: int, *, device: Any = None, dtype: Any = torch.float32) -> Any:
        wide = torch.promote_types(dtype, torch.float32)
        total = torch.zeros(batch, self.d_model, device=device, dtype=wide)
        return AverageState(total, torch.zeros((), device=device, dtype=torch.int64))

    def forward(self, x: Tensor, state: AverageState | None = None) -> tuple[Tensor, Any]:  # x: B T D
        if state is None:
            state = self.init_state(x.shape[0], 0, device=x.device, dtype=x.dtype)
        sums = x.to(state.total.dtype).cumsum(1) + state.total.unsqueeze(1)
        counts = torch.arange(1, x.shape[1] + 1, device=x.device) + state.count
        y = self.map((sums / counts.unsqueeze(-1)).to(x.dtype))
        return y, AverageState(sums[:, -1], state.count + x.shape[1])


class SeesTheFuture(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y + 0.1 * x.roll(-1, 1), state


class StepDisagrees(Average):
    def step(self, x: Tensor, state: AverageState) -> tuple[Tensor, Any]:
        y, state = super().step(x, state)
        return 1.01 * y, state


class ForgetsItsState(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return super().forward(x, None)


class WrongShape(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y.transpose(1, 2), state


class LosesDtype(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y.double(), state


class WrongParameters(Average):
    @classmethod
    def cost(cls, config: MixerConfig, d_model: int) -> Cost:
        return super().cost(config, d_model) + Cost.weights(1)


class WrongFlops(Average):
    @classmethod
    def cost(cls, config: MixerConfig, d_model: int) -> Cost:
        return super().cost(config, d_model) + Cost.work(lambda _: d_model * d_model, lambda _: d_model * d_model)


class WrongState(Average):
    @classmethod
    def cost(cls, config: MixerConfig, d_model: int) -> Cost:
        return super().cost(config, d_model) + Cost.state(lambda L: L)


class MixesTheBatch(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return super().forward(x - 0.1 * x.mean(0, keepdim=True), state)


class WritesIntoItsInput(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x.clone(), state)
        x.detach().mul_(2)
        return y, state


class BreaksTheGraph(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return super().forward(x * (1.0 if float(x.detach().sum()) > 0 else -1.0), state)


class WrongGradient(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y + (x * x).detach(), state


class HasADeadParameter(Average):
    def __init__(self, config: MixerConfig, d_model: int, *args: Any) -> None:
        super().__init__(config, d_model, *args)
        self.unused = nn.Parameter(torch.zeros(1))


class RemembersTheFirstCall(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        self.first = getattr(self, "first", y.detach())
        return y + 0.1 * self.first.mean(), state


class TellsTheNext(Average):
    """A later layer adds what the first one gave."""

    context = True

    def forward(self, x: Tensor, state: Any = None, context: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y + ({} if context is None else context).setdefault("tells_the_next", y), state


class StepIsNotTold(TellsTheNext):
    def step(self, x: Tensor, state: Any, context: Any = None) -> tuple[Tensor, Any]:
        y, state = self.forward(x.unsqueeze(1), state)
        return y.squeeze(1), state


class BareConfig(MixerConfig):
    gain: float = Field(1.0)


class NoForm(Average):
    Config = BareConfig


class SumsInBfloat16(Average):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if x.dtype == torch.bfloat16:  # a thousandth is lost at each of many additions
            x = (x + 64) - 64
        return super().forward(x, state)


BROKEN: list[tuple[type[Mixer], str, str]] = [
    (
        SeesTheFuture,
        "test_the_future_is_out_of_sight",
        "position 8 changed when token 9 changed: the mixer sees the future",
    ),
    (SeesTheFuture, "test_no_gradient_comes_from_the_future", "the mixer sees the future"),
    (StepDisagrees, "test_step_agrees_with_forward", "step and forward differ, first at position 0"),
    (ForgetsItsState, "test_a_sequence_can_be_split_anywhere", "forward(x, state) does not go on, first at position 1"),
    (WrongShape, "test_output_has_the_shape_and_dtype_of_the_input", "maps (2, 11, 64) to (2, 64, 11)"),
    (LosesDtype, "test_output_has_the_shape_and_dtype_of_the_input", "keep the dtype of the input"),
    (WrongParameters, "test_declared_parameters_are_exact", "cost declares 4097 parameters, the module has 4096"),
    (WrongFlops, "test_declared_prefill_flops_are_counted", "1,572,864 FLOPs of prefill, 1,048,576 are counted"),
    (WrongFlops, "test_declared_decode_flops_are_counted", "12,288 FLOPs of decode, 8,192 are counted"),
    (WrongState, "test_declared_state_is_exact", "cost declares 258 bytes of state at length 1"),
    (MixesTheBatch, "test_batch_rows_do_not_mix", "a sequence alone and in a batch differ"),
    (WritesIntoItsInput, "test_forward_repeats_and_leaves_its_input_alone", "writes into its input"),
    (BreaksTheGraph, "test_compiles_to_one_graph", "torch.compile cannot take forward as one graph"),
    (
        RemembersTheFirstCall,
        "test_forward_repeats_and_leaves_its_input_alone",
        "forward remembers an earlier call: keep nothing on the layer itself",
    ),
    (
        StepIsNotTold,
        "test_two_layers_in_one_context_keep_the_contract",
        "of two layers in one context: step and forward differ, first at position 0",
    ),
    (WrongGradient, "test_gradients_are_right", "the gradients differ from finite differences"),
    (HasADeadParameter, "test_every_parameter_gets_a_gradient", "no gradient reaches unused"),
    (NoForm, "test_config_draws_a_form", "BareConfig.gain has no description"),
    (SumsInBfloat16, "test_bfloat16_is_close_to_float64", "take sums, decays and norms in float32"),
]


@pytest.mark.parametrize("mixer", [Average, TellsTheNext])
def test_a_right_mixer_passes(mixer: type[Mixer]) -> None:
    assert [finding for finding in check_mixer(mixer) if not finding.ok] == []


@pytest.mark.parametrize(("mixer", "check", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_mixer_is_found(mixer: type[Mixer], check: str, message: str) -> None:
    found = MixerConformance.of(mixer=mixer).find(check)
    assert not found.ok
    assert message in found.message


class Blurs(FeedForward):
    """Mixes neighbours without a state."""

    name = "blurs"
    summary = "Mean of two tokens"
    Config = FeedForwardConfig

    @classmethod
    def cost(cls, config: FeedForwardConfig, d_model: int) -> Cost:
        return Cost()

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return (x + x.roll(1, 1)) / 2, state


def test_a_feed_forward_that_mixes_tokens_is_found() -> None:
    found = FeedForwardConformance.of(feed_forward=Blurs).find("test_tokens_do_not_mix_without_a_state")
    assert not found.ok
    assert "position 4 changed when token 3 changed" in found.message


class Copy(Task):
    """Repeat the token just seen; `offset` breaks it."""

    name = "copy"

    def check(self) -> None: ...

    def prepare(self, cache: Any, report: Any = None) -> None: ...

    @property
    def vocab_size(self) -> int:
        return 8

    @property
    def sequence_length(self) -> int:
        return 6

    def batch(self, split: str, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(hash((seed, len(split), step, rank)) % 2**31)
        tokens = torch.randint(8, (size, 6), generator=generator)
        return Batch(tokens, tokens)


class CopyOutOfRange(Copy):
    def batch(self, *args: Any, **kwargs: Any) -> Batch:
        batch = super().batch(*args, **kwargs)
        return Batch(batch.inputs + 1, batch.targets)


class CopyFromGlobalGenerator(Copy):
    def batch(self, split: str, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        tokens = torch.randint(8, (size, 6))
        return Batch(tokens, tokens)


class CopyIgnoresRank(Copy):
    def batch(self, split: str, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        return super().batch(split, step, size, seed=seed)


class CopyTestsOnValidation(Copy):
    def batch(self, split: str, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        return super().batch("train" if split == "train" else "validation", step, size, seed=seed, rank=rank)


class CopyOfOtherVocabulary(Copy):
    def evaluation_sets(self) -> dict[str, Task]:
        return {"bits=4": Wider(self.config)}


class Wider(Copy):
    vocab_size = 16  # type: ignore[assignment]


class CopyWithRecallAtTen(Copy):
    def metrics(self, total: Evaluation) -> dict[str, float]:
        return {**super().metrics(total), "recall@10": 1.0}


class CopyOfMeans(Copy):
    """Its loss is divided by the places that are seen, so that places do not add up."""

    by_position = True

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:
        found = super().measure(logits, batch)
        return Evaluation(found.loss / batch.inputs.shape[1], found.correct, found.targets)


class Sums(Copy):
    """The sum of pairs of numbers, for which the class and a level are told."""

    vocab_size, input_features, tells, classes = 0, 2, True, 3  # type: ignore[assignment]

    @property
    def readout(self) -> Callable[[int], Readout]:
        return partial(Regression, features=1)

    def batch(self, *args: Any, **kwargs: Any) -> Batch:
        tokens = super().batch(*args, **kwargs).inputs.float()
        pairs = torch.stack((tokens, tokens.flip(1)), -1)
        return Batch(pairs, pairs.sum(-1, keepdim=True), Told(tokens[:, 0] / 8, tokens[:, 1].long() % 4))

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:
        return Evaluation(loss=float((logits - batch.targets).square().sum()), targets=float(batch.targets.numel()))


class SumsOfIntegers(Sums):
    def batch(self, *args: Any, **kwargs: Any) -> Batch:
        batch = super().batch(*args, **kwargs)
        return Batch(batch.inputs.long(), batch.targets, batch.told)


class SumsWithoutReadout(Sums):
    readout = None  # type: ignore[assignment]


class SumsThatTellNothing(Sums):
    def batch(self, *args: Any, **kwargs: Any) -> Batch:
        batch = super().batch(*args, **kwargs)
        return Batch(batch.inputs, batch.targets)


class SumsOfUnknownClasses(Sums):
    classes = 2  # type: ignore[assignment]


class Free(Regression):
    def cost(self) -> Cost:
        return Cost.weights(super().cost().params)


class Deaf(Regression):
    def loss(self, h: Tensor, targets: Tensor) -> Tensor:
        return super().loss(torch.zeros_like(h) * h, targets)


class SumsReadForNothing(Sums):
    readout = property(lambda self: partial(Free, features=1))  # type: ignore[assignment]


class SumsReadByTheDeaf(Sums):
    readout = property(lambda self: partial(Deaf, features=1))  # type: ignore[assignment]


@pytest.mark.parametrize("task", [Copy, Sums])
def test_a_right_task_passes(task: type[Task]) -> None:
    assert [finding for finding in check_task(task) if not finding.ok] == []


@pytest.mark.parametrize(
    ("task", "check", "message"),
    [
        (CopyOutOfRange, "test_batches_have_their_shape_and_range", "leave the vocabulary of 8"),
        (CopyFromGlobalGenerator, "test_a_batch_depends_on_its_arguments_alone", "with the same arguments differ"),
        (CopyFromGlobalGenerator, "test_batch_leaves_the_global_generator_alone", "global generator"),
        (CopyTestsOnValidation, "test_splits_differ", "split test begins with the batch of split validation"),
        (CopyOfOtherVocabulary, "test_evaluation_sets_are_of_this_vocabulary", "has 16 ids, and the task 8"),
        (CopyWithRecallAtTen, "test_evaluations_add_up", "'recall@10' cannot be told by axes"),
        (CopyOfMeans, "test_positions_are_measured_alike", "do not add up"),
        (CopyIgnoresRank, "test_each_argument_changes_the_batch", "another rank gives the same training batch"),
        (SumsOfIntegers, "test_batches_have_their_shape_and_range", "are int64, not torch.float32"),
        (SumsWithoutReadout, "test_vocabulary_is_known_before_the_data", "readout must say what is asked of them"),
        (SumsThatTellNothing, "test_what_is_told_fits", "the task's `tells` disagree"),
        (SumsOfUnknownClasses, "test_what_is_told_fits", "not within 0 … 2"),
        (SumsReadForNothing, "test_readout_is_costed_and_learns", "declares 0 FLOPs"),
        (SumsReadByTheDeaf, "test_readout_is_costed_and_learns", "does not depend on the hidden states"),
    ],
)
def test_a_broken_task_is_found(task: type[Task], check: str, message: str) -> None:
    found = TaskConformance.of(task=task).find(check)
    assert not found.ok
    assert message in found.message

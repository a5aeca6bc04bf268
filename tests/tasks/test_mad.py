"""MAD's six tasks: every sequence against its definition, and their statistics against slow generators."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_mad
import torch
from scipy import stats

from chimeralab import RunSpec
from chimeralab.contracts import IGNORE, Batch, Evaluation
from chimeralab.errors import SpecError
from chimeralab.events import Metrics
from chimeralab.runs.execute import execute
from chimeralab.runs.sink import Listing
from chimeralab.stack.compose import compose
from chimeralab.testing.layer import randomise
from chimeralab_plugins.tasks.compression import Compression
from chimeralab_plugins.tasks.fuzzy_recall import FuzzyRecall
from chimeralab_plugins.tasks.mad import InContextRecall, MadTask, NoisyRecall
from chimeralab_plugins.tasks.memorization import Memorization
from chimeralab_plugins.tasks.selective_copy import SelectiveCopy

SIX = [InContextRecall, NoisyRecall, FuzzyRecall, SelectiveCopy, Compression, Memorization]


def make(cls: type[MadTask], **options: Any) -> Any:
    task = cls(cls.Config(**options))
    task.check()
    return task


def rows(batch: Batch) -> Iterator[tuple[list[int], list[int]]]:
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_defaults_are_those_of_mad() -> None:
    sizes = {"in_context_recall": (16, 128), "noisy_recall": (32, 128), "fuzzy_recall": (16, 128)}
    sizes |= {"selective_copy": (16, 256), "compression": (16, 32), "memorization": (256, 32)}
    for cls in SIX:
        config: Any = cls.Config()
        assert (config.vocab_size, config.sequence_length) == sizes[cls.name]
        assert config.train_examples == (256 if cls is Memorization else 12_800)
        assert config.validation_examples == 1_280


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("cls", "noise_ids"), [(InContextRecall, 0), (NoisyRecall, 16)])
def test_a_recalled_value_is_the_first_of_its_key_and_nothing_else_is_counted(
    cls: type[InContextRecall], noise_ids: int, split: Any
) -> None:
    task = make(cls)
    real, half = task.vocab_size - noise_ids, (task.vocab_size - noise_ids) // 2
    for inputs, targets in rows(task.batch(split, 2, 64)):
        dictionary: dict[int, int] = {}
        pairs = list(zip(inputs[::2], [*inputs[1::2], None], targets[::2], strict=True))
        assert len(inputs) == 127
        assert set(targets[1::2]) == {IGNORE}
        for key, value, target in pairs[:-1]:
            if key >= real:
                assert value is not None
                assert value >= real
                assert target == IGNORE
                continue
            assert key < half <= value < real
            assert target == (value if key in dictionary else IGNORE)
            assert dictionary.setdefault(key, value) == value
        key, _, target = pairs[-1]
        assert dictionary[key] == target


def test_noise_everywhere_leaves_one_pair() -> None:
    task = make(NoisyRecall, noise=0.99, sequence_length=12)
    for inputs, targets in rows(task.batch("validation", 0, 400)):
        assert min(inputs[:-1]) < 8
        assert targets[-1] in range(8, 16)


@pytest.mark.parametrize("cls", [InContextRecall, NoisyRecall, FuzzyRecall])
def test_training_on_recall_predicts_every_next_token(cls: type[MadTask]) -> None:
    batch = make(cls).batch("train", 1, 32)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert (batch.targets[:, -1] != IGNORE).all()


@pytest.mark.parametrize(("k", "v", "vocab", "length"), [(3, 3, 16, 128), (1, 1, 16, 32), (2, 3, 9, 64), (3, 1, 8, 32)])
def test_fuzzy_pairs_keep_their_values(k: int, v: int, vocab: int, length: int) -> None:
    options = {"key_motif": k, "value_motif": v, "vocab_size": vocab, "sequence_length": length}
    task, half, never_there = make(FuzzyRecall, **options), (vocab - 1) // 2, 0
    for inputs, targets in rows(task.batch("validation", 0, 400)):
        answer = [target for target in targets if target != IGNORE][-1]
        tokens = [*inputs, answer]
        counted = [IGNORE, *targets]
        start = next(i for i, token in enumerate(tokens) if token != vocab - 1)
        assert start >= 1
        dictionary: dict[tuple[int, ...], tuple[int, ...]] = {}
        while start < len(tokens):
            end = start + k
            while end < len(tokens) and half <= tokens[end] < vocab - 1:
                end += 1
            key, value = tuple(tokens[start : start + k]), tuple(tokens[start + k : end])
            assert len(set(key)) == k
            assert max(key) < half
            assert 1 <= len(value) == len(set(value)) <= v
            assert counted[start : start + k] == [IGNORE] * k
            last = end == len(tokens)
            never_there += last and key not in dictionary
            assert tuple(counted[start + k : end]) == (value if key in dictionary or last else (IGNORE,) * len(value))
            assert dictionary.setdefault(key, value) == value
            start = end
    assert never_there < 60  # of 400: MAD's border that may lie too late


def compare(name: str, ours: list[float], slow: list[float]) -> None:
    """Two samples of whole numbers come from one distribution."""
    values = np.unique([*ours, *slow])
    if len(values) > 8:
        values = np.unique(np.quantile([*ours, *slow], np.linspace(0, 1, 9), method="lower")[:-1])
    table = np.array([np.histogram(sample, [*values, np.inf])[0] for sample in (ours, slow)])
    rare = table.sum(0) < 20
    kept = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1)
    kept = kept[:, kept.sum(0) > 0]
    assert kept.shape[1] > 1
    assert stats.chi2_contingency(kept).pvalue > 1e-3, (name, kept)


STATISTICS: dict[str, Callable[[list[int], list[int]], float]] = {
    "targets": lambda _, counted: sum(t != IGNORE for t in counted),
    "first counted": lambda _, counted: next((i for i, t in enumerate(counted) if t != IGNORE), -1),
    "last token": lambda tokens, _: tokens[-1],
    "token in the middle": lambda tokens, _: tokens[len(tokens) // 2],
    "lowest id": lambda tokens, _: sum(t == 0 for t in tokens),
    "highest id": lambda tokens, _: sum(t == max(tokens) for t in tokens),
    "tokens that come again": lambda tokens, _: sum(a == b for a, b in zip(tokens, tokens[2:], strict=False)),
}


@pytest.mark.parametrize(
    ("cls", "options", "slow", "shifted"),
    [
        (InContextRecall, {"sequence_length": 24}, lambda rng: slow_mad.recall(rng, 16, 24), True),
        (
            NoisyRecall,
            {"sequence_length": 24, "noise": 0.3, "noise_vocab_size": 10, "vocab_size": 21},
            lambda rng: slow_mad.recall(rng, 21, 24, 10, 0.3),
            True,
        ),
        (FuzzyRecall, {}, lambda rng: slow_mad.fuzzy(rng, 16, 128, 3, 3, False), True),
        (
            FuzzyRecall,
            {"vocab_size": 8, "sequence_length": 20, "key_motif": 2},
            lambda rng: slow_mad.fuzzy(rng, 8, 20, 2, 3, False),
            True,
        ),
        (SelectiveCopy, {}, lambda rng: slow_mad.selective_copy(rng, 16, 256, 16), False),
    ],
    ids=["recall", "noisy", "fuzzy", "fuzzy-short", "copy"],
)
def test_statistics_are_those_of_a_slow_generator(
    cls: type[MadTask], options: dict[str, Any], slow: Callable[[np.random.Generator], slow_mad.Sequence], shifted: bool
) -> None:
    n, rng = 1500, np.random.default_rng(0)
    theirs = [slow(rng) for _ in range(n)]
    batch = make(cls, validation_examples=n, **options).batch("validation", 0, n)
    ours = list(rows(batch))
    if shifted:  # the last token is only a target, and the first is no target
        ours = [([*i, next(t for t in reversed(c) if t != IGNORE)], [IGNORE, *c]) for i, c in ours]
    assert {len(i) for i, _ in ours} == {len(i) for i, _ in theirs}
    for name, statistic in STATISTICS.items():
        samples = [[statistic(*row) for row in those] for those in (ours, theirs)]
        if len({*samples[0], *samples[1]}) > 1:
            compare(name, *samples)


def test_fuzzy_training_sizes_are_those_of_a_slow_generator() -> None:
    n, rng = 1500, np.random.default_rng(1)
    theirs = [slow_mad.fuzzy(rng, 16, 128, 3, 3, True)[0] for _ in range(n)]
    batch = make(FuzzyRecall, train_examples=n).batch("train", 0, n)
    ours = torch.cat([batch.inputs, batch.targets[:, -1:]], 1).tolist()
    statistics: dict[str, Callable[[list[int]], float]] = {
        "padding": lambda tokens: tokens.count(15),
        "a token of keys": lambda tokens: tokens.count(3),
        "a token of values": lambda tokens: tokens.count(11),
        "pairs": lambda tokens: sum(a < 7 <= b for a, b in itertools.pairwise(tokens)),
        "different triples": lambda tokens: len({*zip(tokens, tokens[1:], tokens[2:], strict=False)}),
    }
    for name, statistic in statistics.items():
        compare(name, [statistic(row) for row in ours], [statistic(row) for row in theirs])


@pytest.mark.parametrize(("V", "L", "K"), [(16, 256, 16), (3, 4, 1), (10, 40, 19)])
def test_selective_copy_writes_what_stood_between_blanks(V: int, L: int, K: int) -> None:
    task = make(SelectiveCopy, vocab_size=V, sequence_length=L, tokens_to_copy=K)
    for inputs, targets in rows(task.batch("train", 0, 40)):
        assert [token for token in inputs if token < V - 2] == targets[-K:]
        assert inputs[L - K - 1 :] == [V - 1] + [V - 2] * K
        assert inputs[L - K - 2] < V - 2
        assert targets[:-K] == [IGNORE] * (L - K)


def test_memorized_values_are_one_dictionary_over_all_splits_that_the_inputs_do_not_hold() -> None:
    task, other = make(Memorization), make(Memorization, data_seed=1)
    dictionary: dict[int, int] = {}
    for split in ("train", "validation", "test"):
        for inputs, targets in rows(task.batch(split, 0, 256)):
            assert set(inputs[1::2]) == {255}
            assert set(targets[::2]) == {IGNORE}
            for key, value in zip(inputs[::2], targets[1::2], strict=True):
                assert key < 127 <= value < 255
                assert dictionary.setdefault(key, value) == value
    assert len(set(dictionary.values())) == len(dictionary) == 127
    assert task.values.tolist() != other.values.tolist()


def test_compression_asks_for_all_places() -> None:
    task = make(Compression, vocab_size=5, sequence_length=7)
    for split in ("train", "validation"):
        batch = task.batch(split, 0, 700)
        assert torch.equal(batch.targets, batch.inputs)
        assert (batch.inputs[:, -1] == 4).all()
        assert stats.chisquare(np.bincount(batch.inputs[:, :-1].flatten().numpy(), minlength=5)[:4]).pvalue > 1e-3


@pytest.mark.parametrize("width", [8, 16])
def test_the_decoder_of_compression_is_that_of_mad(width: int) -> None:
    """Its equation written out in torch.nn, place by place."""
    readout = make(Compression, vocab_size=5, sequence_length=7).readout(width).double()
    randomise(readout)
    h = torch.randn(3, 7, width, dtype=torch.float64, requires_grad=True)
    found, half = readout(h), width // 2
    for place in range(7):
        angles = [place / 10_000 ** (n / (half - 1)) for n in range(half)]
        x = h[:, 6] + torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
        for linear, weight in zip([*readout.maps, readout.scores], readout.norms, strict=True):
            x = torch.nn.functional.rms_norm(x, (width,), weight, 1e-6) @ linear.weight.T + linear.bias
            x = x if linear is readout.scores else torch.nn.functional.gelu(x)
        torch.testing.assert_close(found[:, place], x, rtol=0, atol=1e-6)  # ω is a float32
    found.square().sum().backward()
    assert not h.grad[:, :-1].any()
    assert h.grad[:, -1].all()


@pytest.mark.usefixtures("one_thread")
def test_a_sequence_is_learned_to_be_read_off_the_last_state(tmp_path: Path) -> None:
    options = {"vocab_size": 4, "sequence_length": 6}
    spec = RunSpec.model_validate(
        {
            "stack": compose("gru, gru", d_model=32),
            "task": {"name": "compression", "options": options},
            "train": {"steps": 150, "batch_size": 64, "lr": 1e-2, "warmup_steps": 10, "eval_every": 150},
            "profile": {"contexts": [6]},
        }
    )
    sink = Listing()
    execute(spec, folder=tmp_path, cache=tmp_path, sink=sink)
    values = [event.values for event in sink.events if isinstance(event, Metrics)]
    accuracy = [found["validation/accuracy"] for found in values if "validation/accuracy" in found]
    assert accuracy[-1] > make(Compression, **options).chance()["accuracy"] + 0.3


def test_a_guess_among_the_answers_scores_the_stated_chance() -> None:
    answers = {InContextRecall: range(8, 16), NoisyRecall: range(8, 16), FuzzyRecall: range(7, 15)}
    answers |= {SelectiveCopy: range(14), Memorization: make(Memorization).values.tolist()}
    for cls, values in answers.items():
        task = make(cls)
        batch = task.batch("validation", 0, 60)
        logits = torch.full((60, task.sequence_length, task.vocab_size), -torch.inf)
        logits[..., values] = 0
        total = Evaluation()
        for value in values:
            logits[..., value] = 1e-4
            total += task.measure(logits, batch)
            logits[..., value] = 0
        found = task.metrics(total)
        assert found["loss"] == pytest.approx(task.chance()["loss"], abs=1e-3)
        assert found["accuracy"] == pytest.approx(task.chance()["accuracy"], rel=1e-6)


def test_the_chance_of_compression_knows_the_last_token_alone() -> None:
    task = make(Compression)
    scores = torch.full((640, 32, 16), -torch.inf)
    scores[:, :-1, :15], scores[:, -1, 15] = 0, 0
    scores[:, :, 3] += 1e-5
    batch = task.batch("validation", 0, 640)
    found, chance = task.metrics(task.measure(scores, batch)), task.chance()
    assert found["loss"] == pytest.approx(chance["loss"], rel=1e-4)
    assert found["accuracy"] == pytest.approx(chance["accuracy"], rel=0.03)


@pytest.mark.parametrize(
    ("cls", "options", "place"),
    [
        (InContextRecall, {"sequence_length": 127}, "sequence_length"),
        (NoisyRecall, {"vocab_size": 19}, "vocab_size"),
        (FuzzyRecall, {"sequence_length": 12}, "sequence_length"),
        (FuzzyRecall, {"vocab_size": 6}, "vocab_size"),
        (SelectiveCopy, {"sequence_length": 33}, "sequence_length"),
        (Memorization, {"sequence_length": 31}, "sequence_length"),
    ],
)
def test_options_that_cannot_work_are_named(cls: type[MadTask], options: dict[str, int], place: str) -> None:
    with pytest.raises(SpecError) as error:
        make(cls, **options)
    assert error.value.place == f"task.options.{place}"


def test_the_remedies_work() -> None:
    for cls, options in (
        (NoisyRecall, {"vocab_size": 20}),
        (FuzzyRecall, {"sequence_length": 13}),
        (FuzzyRecall, {"vocab_size": 7}),
        (SelectiveCopy, {"sequence_length": 34}),
    ):
        for split in ("train", "validation"):
            task = make(cls, **options)
            assert task.batch(split, 0, 50).inputs.max() < task.vocab_size

"""What is measured when training has ended: the test split, the evaluation sets, by position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from local_runs import Execute, MakeSpec, curve_of

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError
from chimeralab.events import Log, Metrics, Progress
from chimeralab.metrics import parse
from chimeralab.runs.check import check_metric, make_task, metric_names
from chimeralab.runs.checkpoint import load_weights
from chimeralab.runs.evaluate import evaluate, inference, position_buckets
from chimeralab.runs.sink import Listing
from chimeralab.runs.spec import TaskSpec
from chimeralab.runs.trainer import Cancelled
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose

TASK = {
    "name": "group_word_problem",
    "options": {"sequence_length": 6, "test_lengths": [6, 12], "validation_examples": 20},
}
TRAIN = {"steps": 4, "eval_batches": 8, "sample_tokens": 0}


def held_out(events: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for event in events:
        if isinstance(event, Metrics):
            new = {name: value for name, value in event.values.items() if name.startswith("test/")}
            assert not new.keys() & found.keys(), "measured twice"
            assert not new or event.step == TRAIN["steps"]
            found |= new
    return found


def test_the_test_split_and_each_set_are_measured_once_when_training_has_ended(
    make_spec: MakeSpec, run: Execute, tmp_path: Path
) -> None:
    spec = make_spec(task=TASK, train={**TRAIN, "eval_every": 2})
    events = run(spec)
    found = held_out(events)
    model = build(spec.stack, 6)
    load_weights(sorted((tmp_path / "checkpoints").glob("step-*"))[-1], model)
    task = make_task(spec.task)
    for place, other in {"": task, **{f"@{place}": other for place, other in task.evaluation_sets().items()}}.items():
        counts = {"correct": 0.0, "loss": 0.0, "targets": 0.0}
        for step in range(5):  # batches of 4 hold the 20 sequences
            batch = other.batch("test", step, 4)
            with inference(model):
                scores = model(batch.inputs)[0].double().log_softmax(-1)
            counts["loss"] -= float(scores.gather(2, batch.targets[..., None]).sum())
            counts["correct"] += float((scores.argmax(-1) == batch.targets).sum())
            counts["targets"] += batch.targets.numel()
        assert found[f"test/accuracy{place}"] == pytest.approx(counts["correct"] / counts["targets"])
        assert found[f"test/loss{place}"] == pytest.approx(counts["loss"] / counts["targets"], rel=1e-5)
    assert "test" in {event.phase for event in events if isinstance(event, Progress)}


def test_positions_are_those_of_a_loss_taken_token_by_token() -> None:
    task = make_task(TaskSpec(name="group_word_problem", options={"sequence_length": 9, "validation_examples": 7}))
    model = build(compose("mamba x2", d_model=16), task.vocab_size)
    size = {"batches": 4, "batch_size": 2, "device": torch.device("cpu")}
    found = evaluate(model, task, split="test", by_position=True, **size)
    losses = []
    for step in range(4):
        batch = task.batch("test", step, 2)
        with inference(model):
            logits = model(batch.inputs)[0]
        losses.append(
            torch.nn.functional.cross_entropy(logits.mT, batch.targets, ignore_index=IGNORE, reduction="none")
        )
    by_token = torch.cat(losses)[:7]  # the eighth row is past the last sequence
    for start, stop in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 9)]:
        assert found[f"loss@position={stop}"] == pytest.approx(float(by_token[:, start:stop].mean()), rel=1e-5)
    assert found["loss"] == pytest.approx(float(by_token.mean()), rel=1e-5)
    assert sum("@" in name for name in found) == 7 * 3


def test_text_is_tested_by_position_in_context(make_spec: MakeSpec, run: Execute, corpus: Path) -> None:
    task = {"name": "text", "options": {"source": str(corpus), "sequence_length": 32, "validation_tokens": 512}}
    found = held_out(run(make_spec(task=task, train={**TRAIN, "eval_batches": 99})))
    bits = {int(name.partition("=")[2]): value for name, value in found.items() if "bits_per_byte@" in name}
    assert list(bits) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    widths = [end - start for start, end in position_buckets(32)]
    mean = sum(width * value for width, value in zip(widths, bits.values(), strict=True)) / 32
    assert found["test/bits_per_byte"] == pytest.approx(mean)  # a token is a byte


@pytest.mark.parametrize("length", [1, 2, 3, 7, 256, 500, 65_535, 65_537, 1 << 20])
def test_buckets_of_positions_join_and_are_32_at_most(length: int) -> None:
    buckets = position_buckets(length)
    assert [start for start, _ in buckets] == [0, *(stop for _, stop in buckets[:-1])]
    assert buckets[-1][1] == length
    assert len(buckets) <= 32
    widths = [stop - start for start, stop in buckets]
    assert all(width <= max(start, 1) for width, (start, _) in zip(widths, buckets, strict=True))


def test_a_run_resumed_after_its_last_step_finds_the_same_once_more(
    make_spec: MakeSpec, run: Execute, tmp_path: Path
) -> None:
    spec = make_spec(task=TASK, train=TRAIN)
    first = run(spec)
    again = run(spec, resume=sorted((tmp_path / "checkpoints").glob("step-*"))[-1])
    assert curve_of(again) == [point for point in curve_of(first) if point[2].startswith("test/")]


class StopInTest(Listing):
    def stop_requested(self) -> bool:
        return any(isinstance(event, Progress) and event.phase == "test" for event in self.events)


def test_a_run_can_be_cancelled_between_two_sets_and_go_on(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    spec, sink = make_spec(task=TASK, train=TRAIN), StopInTest()
    with pytest.raises(Cancelled):
        run(spec, sink=sink)
    assert not any("@length" in name for name in held_out(sink.events))
    resumed = run(spec, resume=sorted((tmp_path / "checkpoints").glob("step-*"))[-1])
    assert any("@length=12" in name for name in held_out(resumed))


def test_a_set_that_the_stack_cannot_take_is_left_out_with_a_warning(make_spec: MakeSpec, run: Execute) -> None:
    stack = compose("attention[rope=false]", d_model=16, positions=8)
    events = run(make_spec(task=TASK, train=TRAIN, stack=stack))
    lengths = [dict(parse(name).axes).get("length") for name in held_out(events)]
    assert {length for length in lengths if length} == {6}
    (warning,) = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert "length=12" in warning
    assert "learned positions for 8 tokens" in warning


def test_what_a_run_measures_is_known_before_it_is_queued(make_spec: MakeSpec, run: Execute) -> None:
    spec = make_spec(task=TASK, train=TRAIN)
    task, events = make_task(spec.task), run(spec)
    measured = {n for e in events if isinstance(e, Metrics) for n in e.values if not n.startswith("train/")}
    known = set(metric_names(task))
    assert known == {name for name in measured if "position" not in dict(parse(name).axes)}
    for name in measured:
        check_metric(name, task)
    for name in ("test/acuracy", "test/accuracy@length=13", "test/accuracy@depth=1", "accuracy"):
        with pytest.raises(SpecError):
            check_metric(name, task)


def test_long_test_sequences_come_in_more_and_smaller_batches(
    monkeypatch: pytest.MonkeyPatch, make_spec: MakeSpec
) -> None:
    from chimeralab.runs import evaluate as module

    sizes = {}

    def noted(model: Any, task: Any, **settings: Any) -> dict[str, float]:
        sizes[task.sequence_length] = settings["batches"], settings["batch_size"]
        return {}

    monkeypatch.setattr(module, "evaluate", noted)
    spec = make_spec(task=TASK, train={**TRAIN, "batch_size": 8})
    task = make_task(spec.task)
    model = build(spec.stack, 6)
    for length in (6, 12, 25, 1000):
        module.measure_test(model, task.at({"length": length}), task, spec.train, torch.device("cpu"), torch.float32)
    assert sizes == {6: (8, 8), 12: (16, 4), 25: (32, 1), 1000: (32, 1)}

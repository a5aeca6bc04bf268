"""The trainer on a CPU: it learns, goes on after an interruption as if nothing had happened, and says why it fails."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from local_runs import Execute, MakeSpec, curve_of, values_of

from chimeralab import ops
from chimeralab.contracts import ParamGroup
from chimeralab.errors import RunFailed
from chimeralab.events import Checkpoint, Environment, Log, Metrics, Profile, Progress, Sample
from chimeralab.runs import trainer
from chimeralab.runs.check import make_task
from chimeralab.runs.checkpoint import load_weights
from chimeralab.runs.execute import execute
from chimeralab.runs.optimizer import adamw, learning_rate, set_learning_rate
from chimeralab.runs.sink import Listing
from chimeralab.runs.spec import TrainSpec
from chimeralab.runs.trainer import Cancelled
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose

BITS = "validation/bits_per_byte"


class StopAt(Listing):
    """Asks the run to stop before the step after `step`."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


def test_the_loss_falls(make_spec: MakeSpec, run: Execute) -> None:
    losses = values_of(run(make_spec()), "train/loss")
    assert losses[-1] < losses[0] - 1


def test_the_first_loss_is_that_of_a_uniform_guess(make_spec: MakeSpec, run: Execute) -> None:
    losses = values_of(run(make_spec(train={"steps": 1})), "train/loss")
    assert losses[0] == pytest.approx(math.log(256), abs=0.1)


def test_dropout_zeroes_its_share_in_training_and_nothing_in_evaluation() -> None:
    model = build(compose("identity x2, ffn=mlp", d_model=32, residual="parallel"), 16, seed=0)
    tokens = torch.zeros(1, 4096, dtype=torch.long)
    model.set_dropout(0.25)
    embedded = model.train()._embed(tokens, None)[0].detach()
    assert float((embedded == 0).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert embedded.mean() == pytest.approx(float(model.embedding.weight[0].detach().mean()), abs=0.01)
    assert not torch.equal(model.hidden(tokens)[0], model.hidden(tokens)[0])
    first, second = (model.eval().hidden(tokens)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert [layer.dropout for layer in model.layers] == [0.25, 0.25]


def test_dropout_acts_on_the_branches_of_every_form() -> None:
    tokens = torch.arange(8).view(1, 8)
    for residual in ("pre", "post", "reordered", "sandwich", "parallel"):
        model = build(compose("attention[heads=2]", d_model=32, residual=residual), 16, seed=0)
        model.set_dropout(0.5)
        model.dropout = 0.0  # of the embeddings
        assert not torch.equal(model.hidden(tokens)[0], model.hidden(tokens)[0]), residual


def test_two_runs_of_one_spec_measure_the_same(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    first = curve_of(run(make_spec()))
    for path in checkpoints(tmp_path):
        path.rename(tmp_path / path.name)
    assert curve_of(run(make_spec())) == first


def test_another_seed_measures_something_else(make_spec: MakeSpec, run: Execute) -> None:
    first, second = (values_of(run(make_spec(seed=seed, train={"steps": 2})), "train/loss") for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"accumulate": 2},
        {"eval_every": 2, "patience": 4},
        {"log_every": 5, "checkpoint_every": 100},
        {"precision": "bfloat16"},
        {"sample_tokens": 4},
        {"dropout": 0.3},
    ],
    ids=lambda train: ", ".join(train) or "plain",
)
@pytest.mark.parametrize("stop", [0, 1, 11, 16])
def test_a_resumed_run_repeats_the_undisturbed_curve(
    make_spec: MakeSpec, run: Execute, tmp_path: Path, train: dict, stop: int
) -> None:
    spec, sink = make_spec(train=train), StopAt(stop)
    with pytest.raises(Cancelled):
        run(spec, sink=sink)
    last = tmp_path / "stopped"
    checkpoints(tmp_path)[-1].rename(last)
    (tmp_path / "checkpoints").rename(tmp_path / "before")
    resumed = run(spec, resume=last)
    (tmp_path / "checkpoints").rename(tmp_path / "after")
    assert curve_of(sink.events) + curve_of(resumed) == curve_of(run(spec))


def test_a_run_resumed_after_its_last_step_only_profiles(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    spec = make_spec(profile={"contexts": [8], "decode_tokens": 2})
    run(spec)
    events = run(spec, resume=checkpoints(tmp_path)[-1])
    assert not curve_of(events)
    assert [event.name for event in events if isinstance(event, Profile)] == ["train", "prefill", "decode"]


def test_data_that_changed_under_a_run_is_reported(
    make_spec: MakeSpec, run: Execute, tmp_path: Path, corpus: Path
) -> None:
    run(make_spec())
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("something else entirely\n" * 200)
    task = {"name": "text", "options": {"source": str(other), "sequence_length": 32}}
    events = run(make_spec(task=task, train={"steps": 25}), resume=checkpoints(tmp_path)[-1])
    assert any("data has changed" in e.message for e in events if isinstance(e, Log) and e.level == "warning")


def test_tokens_and_seconds_go_on_counting_after_a_resume(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    sink = StopAt(10)
    with pytest.raises(Cancelled):
        run(make_spec(), sink=sink)
    before = next(e for e in reversed(sink.events) if isinstance(e, Metrics))
    after = next(e for e in run(make_spec(), resume=checkpoints(tmp_path)[-1]) if isinstance(e, Metrics))
    assert (before.step, before.tokens) == (10, 10 * 4 * 32)
    assert (after.step, after.tokens) == (11, 11 * 4 * 32)
    assert after.seconds > before.seconds


WILD = {"lr": 1e18, "clip": 0, "warmup_steps": 0}


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(make_spec: MakeSpec, run: Execute) -> None:
    with pytest.raises(RunFailed, match=r"step \d+: the loss is (nan|inf).* Lower lr"):
        run(make_spec(train=WILD))


def test_a_loss_that_is_not_finite_is_the_last_point_of_the_curve(make_spec: MakeSpec, run: Execute) -> None:
    sink = Listing()
    with pytest.raises(RunFailed):
        run(make_spec(train=WILD), sink=sink)
    assert not math.isfinite(values_of(sink.events, "train/loss")[-1])


def test_no_checkpoint_holds_weights_that_are_not_finite(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    spec = make_spec(train={**WILD, "log_every": 100, "eval_every": 100, "checkpoint_every": 1})
    with pytest.raises(RunFailed):
        run(spec)
    model = build(spec.stack, 256)
    for path in checkpoints(tmp_path):
        load_weights(path, model)
        assert all(parameter.isfinite().all() for parameter in model.parameters()), path.name


def test_a_cancelled_run_saves_no_weights_that_are_not_finite(
    make_spec: MakeSpec, run: Execute, tmp_path: Path
) -> None:
    rare = {"log_every": 100, "eval_every": 100, "checkpoint_every": 100}
    with pytest.raises(Cancelled):
        run(make_spec(train={**WILD, **rare}), sink=StopAt(20))
    assert not checkpoints(tmp_path)


def test_an_evaluation_that_is_not_a_number_is_never_the_best(
    make_spec: MakeSpec, run: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = trainer.evaluate
    lost = iter([True])  # the first evaluation alone

    def evaluate_late(*given: Any, **options: Any) -> dict[str, float]:
        found = measured(*given, **options)
        return dict.fromkeys(found, math.nan) if next(lost, False) else found

    monkeypatch.setattr(trainer, "evaluate", evaluate_late)
    events = run(make_spec())
    assert math.isnan(values_of(events, BITS)[0])
    best = [event.step for event in events if isinstance(event, Checkpoint) and event.role == "best"]
    assert best == [16, 24]


def test_patience_ends_a_run_that_gets_no_better(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    flat = {"lr": 1e-12, "warmup_steps": 0, "weight_decay": 0, "eval_every": 2, "patience": 3, "checkpoint_every": 100}
    events = run(make_spec(train={**flat, "steps": 1000}))
    stopped = max(event.step for event in events if isinstance(event, Metrics))
    assert stopped < 30
    assert any(f"stopped at step {stopped}" in event.message for event in events if isinstance(event, Log))
    assert checkpoints(tmp_path)[-1].name == f"step-{stopped:08d}"


def test_a_run_stops_once_it_is_good_enough(make_spec: MakeSpec, run: Execute) -> None:
    losses = values_of(run(make_spec(train={"eval_every": 2, "steps": 20})), "validation/bits_per_byte")
    goal = sum(losses[1:3]) / 2  # between the second evaluation and the third
    assert losses[1] > goal > losses[2]
    events = run(make_spec(train={"eval_every": 2, "steps": 20, "stop_at": goal}))
    assert values_of(events, "validation/bits_per_byte") == losses[:3]
    assert any("stopped at step 6" in event.message for event in events if isinstance(event, Log))


def test_the_newest_and_the_best_checkpoint_stay(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    up = {"lr": 0.05, "min_lr_ratio": 1, "eval_every": 3, "checkpoint_every": 2, "steps": 40}
    events = run(make_spec(train=up))
    announced = [event for event in events if isinstance(event, Checkpoint)]
    last = {event.role: Path(event.path) for event in announced}
    assert set(checkpoints(tmp_path)) == set(last.values())
    assert last["newest"].name == "step-00000040"


def test_an_attempt_deletes_the_best_checkpoint_of_the_one_before_when_it_has_a_better_one(
    make_spec: MakeSpec, tmp_path: Path, cache: Path
) -> None:
    spec = make_spec(train={"steps": 16})
    first, second = StopAt(10), Listing()
    with pytest.raises(Cancelled):
        execute(spec, folder=tmp_path / "attempt-1", cache=cache, sink=first)
    named = {event.role: Path(event.path) for event in first.events if isinstance(event, Checkpoint)}
    assert {role: path.name for role, path in named.items()} == {"best": "step-00000008", "newest": "step-00000010"}
    folder = tmp_path / "attempt-2"
    execute(spec, folder=folder, cache=cache, sink=second, resume=named["newest"], best=named["best"])
    assert checkpoints(tmp_path / "attempt-1") == []
    assert [path.name for path in checkpoints(folder)] == ["step-00000016"]


class TakenOver(StopAt):
    """A sink of an attempt that another one has replaced."""

    def stop_requested(self) -> bool:
        self.stale = super().stop_requested()
        return self.stale


def test_an_attempt_that_another_has_replaced_writes_nothing_more(
    make_spec: MakeSpec, run: Execute, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        run(make_spec(), sink=TakenOver(10))
    assert [path.name for path in checkpoints(tmp_path)][-1] == "step-00000008"


def test_tiles_that_no_kernel_has_any_more_are_passed_over_with_a_warning(
    make_spec: MakeSpec, run: Execute, cache: Path
) -> None:
    file = cache / ops.tiles.FILE
    stale = {ops.tiles.architecture(): {"gone": {"all": {"wait": 1}}}}
    try:
        for content, told in ((json.dumps({"architectures": stale}), "'gone'"), ("{", "no file of tiles")):
            file.write_text(content)
            events = run(make_spec(train={"steps": 1}))
            (warning,) = [event for event in events if isinstance(event, Log) and event.level == "warning"]
            assert warning.message.startswith("tiles of kernels are not used")
            assert told in warning.message
    finally:
        file.unlink()


class StoredWhileProfiling(Listing):
    """A sink whose store takes nothing before the profile."""

    @property
    def acknowledged(self) -> int:
        return len(self.events) if any(isinstance(event, Profile) for event in self.events) else 0


def test_checkpoints_that_are_replaced_late_are_deleted_late(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    spec = make_spec(profile={"contexts": [8], "decode_tokens": 1}, train={"lr": 1e-12, "weight_decay": 0})
    run(spec, sink=StoredWhileProfiling())
    assert len(checkpoints(tmp_path)) <= 2


def test_the_best_checkpoint_is_the_one_with_the_best_metric(make_spec: MakeSpec, run: Execute) -> None:
    events = run(make_spec())
    bits = {e.step: e.values[BITS] for e in events if isinstance(e, Metrics) and BITS in e.values}
    best = [event for event in events if isinstance(event, Checkpoint) and event.role == "best"][-1]
    assert best.step == min(bits, key=bits.__getitem__)
    assert best.metrics[BITS] == min(bits.values())


def test_the_size_of_a_checkpoint_is_that_of_its_files(make_spec: MakeSpec, run: Execute) -> None:
    last = [event for event in run(make_spec()) if isinstance(event, Checkpoint)][-1]
    assert last.bytes == sum(file.stat().st_size for file in Path(last.path).iterdir())


def test_progress_comes_before_the_first_step_and_ends_at_the_last(make_spec: MakeSpec, run: Execute) -> None:
    steps = [(event.step, event.total) for event in run(make_spec()) if isinstance(event, Progress)]
    assert (steps[0], steps[-1]) == ((0, 24), (24, 24))


def test_utilisation_is_a_share_of_what_the_machine_multiplies(make_spec: MakeSpec, run: Execute) -> None:
    shares = values_of(run(make_spec()), "train/flops_utilisation")
    assert all(0 < share < 2 for share in shares)


def test_a_sample_is_written_for_each_prompt_at_each_evaluation(make_spec: MakeSpec, run: Execute) -> None:
    samples = [e for e in run(make_spec(train={"sample_tokens": 5})) if isinstance(e, Sample)]
    assert {sample.step for sample in samples} == {8, 16, 24}
    assert all(len(sample.text.encode()) >= 5 and sample.prompt for sample in samples)


def test_a_profile_has_its_units_for_every_context(make_spec: MakeSpec, run: Execute) -> None:
    spec = make_spec(train={"steps": 1}, profile={"contexts": [8, 20], "decode_tokens": 3, "batch_size": 2})
    measured = {(e.name, e.context, e.batch): e.values for e in run(spec) if isinstance(e, Profile)}
    speed = {"tokens_per_second"}  # memory is measured on a GPU alone
    assert {key: set(values) for key, values in measured.items()} == {
        ("train", 32, 4): speed | {"step_ms"},
        ("prefill", 8, 2): speed | {"prefill_ms"},
        ("decode", 8, 2): speed | {"decode_ms", "state_bytes"},
        ("prefill", 20, 2): speed | {"prefill_ms"},
        ("decode", 20, 2): speed | {"decode_ms", "state_bytes"},
    }
    assert all(values["tokens_per_second"] > 0 for values in measured.values())


def test_the_environment_names_the_kernel_that_was_pinned(make_spec: MakeSpec, run: Execute) -> None:
    spec = make_spec(train={"steps": 1}, kernels={"gated_linear_attention": "reference"})
    (environment,) = (event.values for event in run(spec) if isinstance(event, Environment))
    assert environment["kernels"]["gated_linear_attention"] == "reference"
    assert environment["kernels"]["attention"] == "torch"


def test_the_environment_names_device_precision_and_parameters(make_spec: MakeSpec, run: Execute) -> None:
    spec = make_spec(train={"steps": 1, "precision": "bfloat16"})
    (environment,) = (event.values for event in run(spec) if isinstance(event, Environment))
    assert environment["precision"] == "bfloat16"
    assert environment["parameters"] == build(spec.stack, 256, device="meta").parameter_count()
    assert environment["versions"]["torch"] == torch.__version__


def test_a_compiled_run_measures_what_an_uncompiled_one_does(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    plain, compiled = (
        values_of(run(make_spec("attention[heads=2], ffn=none", train={"steps": 2, "compile": on})), "train/loss")
        for on in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_a_step_counts_the_tokens_of_all_its_forward_passes(make_spec: MakeSpec, run: Execute) -> None:
    events = run(make_spec(train={"steps": 1, "batch_size": 2, "accumulate": 3}))
    assert {event.tokens for event in events if isinstance(event, Metrics)} == {3 * 2 * 32}


def test_the_loss_of_an_accumulated_step_is_the_mean_of_its_batches(
    make_spec: MakeSpec, run: Execute, cache: Path
) -> None:
    spec = make_spec(train={"steps": 1, "batch_size": 2, "accumulate": 3})
    (loss,) = values_of(run(spec), "train/loss")
    task, model = make_task(spec.task), build(spec.stack, 256, seed=spec.seed)
    task.prepare(cache)
    batches = [task.batch("train", i, 2, seed=spec.seed) for i in range(3)]
    assert loss == pytest.approx(sum(model.loss(b.inputs, b.targets).item() for b in batches) / 3, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 30, 100])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_the_learning_rate_warms_up_and_follows_half_a_cosine(steps: int, warmup: int) -> None:
    train = TrainSpec(steps=steps, warmup_steps=warmup, lr=0.3, min_lr_ratio=0.2)
    for step in range(steps):
        if step < warmup:
            expected = 0.3 * (step + 1) / warmup
        else:
            phase = (step - warmup) / max(1, steps - 1 - warmup)
            expected = 0.06 + 0.24 * (1 + math.cos(math.pi * phase)) / 2
        assert learning_rate(step, train) == pytest.approx(expected), step


def test_the_learning_rate_ends_at_its_floor() -> None:
    train = TrainSpec(steps=100, warmup_steps=10, lr=0.3, min_lr_ratio=0.2)
    assert learning_rate(10, train) == pytest.approx(0.3)
    assert learning_rate(99, train) == pytest.approx(0.06)


def test_only_groups_that_ask_for_it_decay() -> None:
    model = build(compose("attention", d_model=32), 16)
    optimizer = adamw(model, TrainSpec(weight_decay=0.3))
    asked = {group.weight_decay: {id(p) for p in group.params} for group in model.param_groups()}
    got = {bool(group["weight_decay"]): {id(p) for p in group["params"]} for group in optimizer.param_groups}
    assert got == asked
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3, 0.0}


def test_a_group_trains_at_its_own_share_of_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(compose("attention", d_model=32), 16)
    mixer = model.layers[0].mixer
    monkeypatch.setattr(mixer, "param_groups", lambda: [ParamGroup([*mixer.parameters()], lr_scale=0.25)])
    optimizer = adamw(model, TrainSpec())
    set_learning_rate(optimizer, 0.1)
    assert {(group["lr_scale"], group["lr"]) for group in optimizer.param_groups} == {(1.0, 0.1), (0.25, 0.025)}

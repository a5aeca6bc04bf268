"""What a sweep's members are, and what is refused, with the axis and the value at fault."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from chimeralab.errors import LabError
from chimeralab.sweeps import SweepSpec, read_sweep

PATTERN = "attention[heads=2]"


def sweep(axes: dict[str, Any] | None = None, **fields: Any) -> SweepSpec:
    base = {
        "stack": {"pattern": PATTERN, "d_model": 32},
        "task": {"name": "mqar", "options": {"vocab_size": 64, "sequence_length": 32, "pairs": 2}},
        "train": {"steps": 8},
        **fields.pop("base", {}),
    }
    return SweepSpec.read({"name": "small", "base": base, "axes": axes or {}, **fields})


def test_a_grid_has_every_combination_with_every_seed_in_order() -> None:
    members = sweep({"train.lr": [0.01, 0.1], "stack.d_model": [16, 32]}, seeds=[0, 7]).members()
    assert [(m.spec.train.lr, m.spec.stack.d_model, m.spec.seed) for m in members] == [
        (lr, width, seed) for lr in (0.01, 0.1) for width in (16, 32) for seed in (0, 7)
    ]
    assert members[0].point == {"train.lr": 0.01, "stack.d_model": 16}
    assert members[0].spec.name == "small, train.lr=0.01, stack.d_model=16, seed 0"


def test_what_no_axis_names_is_the_base_s() -> None:
    (member,) = sweep({"task.options.pairs": [4]}).members()
    assert member.spec.task.options == {"vocab_size": 64, "sequence_length": 32, "pairs": 4}
    assert (member.spec.train.steps, member.spec.stack.text) == (8, PATTERN)


def test_a_sweep_without_axes_repeats_its_base_over_seeds() -> None:
    assert [(m.point, m.seed) for m in sweep(seeds=[1, 2]).members()] == [({}, 1), ({}, 2)]


def test_named_points_set_several_fields_together() -> None:
    stacks = {
        "attention": {"stack.pattern": PATTERN, "train.lr": 0.01},
        "mamba": {"stack": {"pattern": "mamba2[head_dim=16]"}, "train": {"lr": 0.02}},
    }
    members = sweep({"stack": stacks, "task.options.pairs": [1, 2]}).members()
    assert [(m.point["stack"], m.spec.stack.text, m.spec.train.lr, m.spec.task.options["pairs"]) for m in members] == [
        ("attention", PATTERN, 0.01, 1),
        ("attention", PATTERN, 0.01, 2),
        ("mamba", "mamba2[head_dim=16]", 0.02, 1),
        ("mamba", "mamba2[head_dim=16]", 0.02, 2),
    ]


def test_intervals_of_a_grid_hold_both_ends_and_are_evenly_spread() -> None:
    values = [m.spec.train.lr for m in sweep({"train.lr": {"log": [1e-4, 1e-2, 3]}}).members()]
    assert values == [1e-4, 1e-3, 1e-2]
    values = [m.spec.train.beta1 for m in sweep({"train.beta1": {"uniform": [0.5, 0.9, 5]}}).members()]
    assert values == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9], rel=1e-12)


def test_random_points_differ_and_are_the_same_for_the_same_seed() -> None:
    axes = {"train.lr": {"log": [1e-4, 1e-1]}, "train.weight_decay": [0, 0.1]}
    first, again, other = (
        sweep(axes, search={"kind": "random", "n": 400, "seed": seed}).points() for seed in (3, 3, 4)
    )
    assert first == again != other
    lrs = [point["train.lr"] for point in first]
    assert len(set(lrs)) == 400
    logs = [math.log10(lr) for lr in lrs]
    assert all(-4 <= value <= -1 for value in logs)
    assert sum(logs) / 400 == pytest.approx(-2.5, abs=0.15)  # 3.5 standard errors
    assert sum(point["train.weight_decay"] == 0 for point in first) == pytest.approx(200, abs=40)


def test_a_spec_comes_back_from_json_as_it_was() -> None:
    spec = sweep({"train.lr": {"log": [1e-4, 1e-2, 3]}, "seed_of": {"a": {"train.steps": 4}}}, prune={"min_step": 2})
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
    assert [m.spec for m in SweepSpec.model_validate_json(spec.model_dump_json()).members()] == [
        m.spec for m in spec.members()
    ]


def test_metric_and_direction_are_the_task_s_unless_they_are_given() -> None:
    plain, loss = sweep(), sweep(metric="validation/loss")
    assert (plain.resolved(plain.members()).metric, plain.resolved(plain.members()).direction) == (
        "validation/accuracy",
        "max",
    )
    assert loss.resolved(loss.members()).direction == "min"
    unknown = sweep(metric="validation/acuracy")
    with pytest.raises(LabError, match=r"'mqar' measures no 'validation/acuracy'.*did you mean 'validation/accuracy'"):
        unknown.resolved(unknown.members())
    own = sweep(metric="train/surprise")
    with pytest.raises(LabError, match=r"direction: is more of train/surprise better"):
        own.resolved(own.members())


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"train.lr": []}, "axes: train.lr: it has no values"),
        ({"train.lr": [0.1, 0.1]}, "axes: train.lr: the value 0.1 stands there twice"),
        ({"train.lr": 0.1}, "axes: train.lr: 0.1 is no axis"),
        ({"train.lr": {"log": [0, 1, 3]}}, "axes: train.lr: expected .* with 0 < low < high"),
        ({"train.lr": {"uniform": [2, 1, 3]}}, "axes: train.lr: expected .* with low < high"),
        ({"train.lr": {"log": [0.1, 1]}}, "axes: train.lr: a grid needs to know how many values"),
        ({"train.lr": {"log": [0.1, 1, 1]}}, "axes: train.lr: a count of 1 values"),
        ({"train.lr": {"low": 0.1}}, "axes: train.lr = low: expected fields, not 0.1"),
        ({"seed": [1, 2]}, r"axes: seed: seeds are an axis of their own. Write seeds"),
        ({"train.lr": [0.1], "r": {"a": {"train.lr": 1}}}, "axes: r: it sets train.lr, and so does train.lr"),
        ({"train.lr": [0.1, -1]}, r"axes: train.lr = -1: run.train.lr: .*greater than 0"),
        (
            {"train.lrr": [0.1], "train.beta1": [0.5]},
            r"axes: train.lrr = 0.1, train.beta1 = 0.5: run.train: unknown option 'lrr'. did you mean 'lr'",
        ),
        ({"train.steps.x": [1]}, r"axes: train.steps.x = 1: 'steps' of train.steps.x has no fields"),
        ({"stack.pattern": ["attenton"], "train.lr": [0.1]}, r"axes: stack.pattern = attenton: .*'attention'"),
        ({"stack.pattern": ["attention["]}, r"axes: stack.pattern = attention\["),
        ({"stack.d_model": [33]}, r"axes: stack.d_model = 33: stack.d_model"),
        ({"s": {"wide": {"stack.pattern": "attention[heads=5]"}}}, r"axes: s = wide: layer 0: attention"),
    ],
)
def test_an_axis_that_does_not_fit_is_named_with_its_value(axes: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        sweep(axes).members()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"search": "random"}, "a random search wants n"),
        ({"search": {"kind": "grid", "n": 3}}, "a grid has all its points"),
        ({"search": "bayes"}, r"sweep\.search\.kind"),
        ({"seeds": [1, 1]}, "a seed stands there twice"),
        ({"seeds": []}, r"sweep\.seeds"),
        ({"metric": "test/accuracy"}, "chosen on validation"),
        ({"base": {"seed": 3}}, r"write seeds: \[0, 1, 2\]"),
        ({"base": {"stack": {}}}, "stack: it has no pattern"),
        ({"at_ones": 3}, "did you mean 'at_once'"),
    ],
)
def test_a_sweep_that_does_not_fit_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        sweep(**fields).members()


def test_more_points_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(LabError, match=r"search\.n: 5 points are asked for, and there are 2"):
        sweep({"train.lr": [0.1, 0.2]}, search={"kind": "random", "n": 5}).points()


def test_a_grid_that_is_too_large_is_refused_before_it_is_expanded() -> None:
    with pytest.raises(LabError, match="the grid has 100000000 points"):
        sweep({f"train.{name}": {"uniform": [0, 0.9, 10_000]} for name in ("beta1", "beta2")}).members()


def test_a_file_is_read_with_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "lrs.yaml"
    file.write_text("base: {stack: {pattern: attention}}\naxes: {train.lr: [1e-3, 2E+0, 0.5], train.clip: [1, 2]}\n")
    spec = read_sweep(file)
    assert (spec.name, spec.axes) == ("lrs", {"train.lr": [0.001, 2.0, 0.5], "train.clip": [1, 2]})
    file.write_text("base: {stack: {pattern: 1e, d_model: 12ea}}")
    assert read_sweep(file).base["stack"] == {"pattern": "1e", "d_model": "12ea"}
    file.write_text("base: !!python/object/apply:os.getcwd []")
    with pytest.raises(LabError, match="it cannot be read"):
        read_sweep(file)

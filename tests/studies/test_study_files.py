"""Studies are read from their files, and each says at every scale which runs it is made of."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml

from chimeralab.errors import LabError
from chimeralab.plugins import registry
from chimeralab.runs.check import make_task
from chimeralab.stack.match import quantity
from chimeralab.studies import StudySpec, read_study

SMALL: dict[str, Any] = {
    "title": "Widths",
    "question": "How wide?",
    "sweep": {
        "base": {"stack": {"pattern": "attention x2"}, "task": {"name": "mqar", "options": {"pairs": 4}}},
        "axes": {
            "stack": {"attention": {"stack.pattern": "attention x2"}, "Mamba": {"stack.pattern": "mamba x2"}},
            "stack.d_model": [64, 128],
            "train.lr": [0.001, 0.01],
        },
        "seeds": [0, 1],
    },
    "scales": {"tiny": {"about": "small", "sweep": {"axes": {"train.lr": [0.01]}}, "only": {"stack": ["Mamba"]}}},
    "choose": ["train.lr"],
    "tables": [{"title": "Accuracy", "metric": "test/accuracy", "rows": "stack", "columns": "stack.d_model"}],
}


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "small", **SMALL, **changes})


@pytest.mark.parametrize("name", sorted(registry().studies))
def test_every_study_says_what_runs_it_is_made_of(name: str) -> None:
    found = read_study(registry().studies[name])
    found.check()
    if not found.needs:
        assert [found.checked_sweep(scale).members() for scale in found.scales]
    assert {"tiny", "paper"} <= set(found.scales)
    assert found.sources
    assert found.published or "no published" in found.text


def test_the_characters_of_tiny_shakespeare_have_ids_enough(tmp_path: Path) -> None:
    characters = "\n !$&',-.3:;?" + string.ascii_letters
    assert len(characters) == 65
    text = tmp_path / "input.txt"
    text.write_text(characters * 4000)
    sweep = read_study(registry().studies["char-shakespeare"]).sweep_at("tiny", {"task.options.source": str(text)})
    make_task(sweep.members()[0].spec.task).prepare(tmp_path / "cache")


def test_a_scale_is_laid_over_the_study() -> None:
    sweep = study().sweep_at("tiny", {"train.steps": 7})
    members = sweep.members()
    assert sweep.name == "small-tiny"
    assert [(m.point["stack"], m.point["stack.d_model"], m.seed) for m in members] == [
        ("Mamba", width, seed) for width in (64, 128) for seed in (0, 1)
    ]
    assert {(m.spec.train.lr, m.spec.train.steps, m.spec.task.options["pairs"]) for m in members} == {(0.01, 7, 4)}


def test_null_takes_a_field_out() -> None:
    base = {"base": {"task": {"options": None}}}
    sweep = study(scales={"tiny": {"about": "small", "sweep": base}}).sweep_at("tiny")
    assert sweep.members()[0].spec.task.options == {}
    assert len(sweep.members()) == 16


def test_points_are_matched_by_what_they_cost() -> None:
    axes = {**SMALL["sweep"]["axes"], "stack.d_model": None}
    sweep = {"base": {"stack": {"d_model": 128}}, "axes": axes}
    scales = {"tiny": {"about": "small", "sweep": sweep}}
    match = {"axis": "stack", "same": "parameters", "like": "attention"}
    stacks = {m.point["stack"]: m.spec.stack for m in study(scales=scales, match=match).sweep_at("tiny").members()}
    assert stacks["attention"].d_model == 128
    assert stacks["Mamba"].d_model != 128
    size = {"vocab_size": 8192, "sequence_length": 64}
    wanted, found = (quantity(stacks[name], "parameters", **size) for name in ("attention", "Mamba"))
    assert abs(found / wanted - 1) < 0.05
    axes |= {"train.lr": {"log": [0.001, 0.1, 3]}, "stack": {1: {"stack.pattern": "mamba"}}}
    members = study(scales=scales, match={**match, "like": 1}).sweep_at("tiny").members()
    assert {m.point["stack"]: m.spec.stack.d_model for m in members}["1"] == 128
    assert {m.spec.train.lr for m in members} == {0.001, 0.01, 0.1}
    with pytest.raises(LabError, match="widths are an axis already"):
        study(scales={"tiny": {"about": "small"}}, match=match).sweep_at("tiny")
    with pytest.raises(LabError, match="'attention' is not a named point of stack"):
        study(match=match).sweep_at("tiny")


def test_what_only_the_user_has_is_asked_for() -> None:
    needy = study(needs={"task.options.source": "the text"})
    with pytest.raises(LabError, match=r"study small: it needs task\.options\.source: the text"):
        needy.sweep_at("tiny")
    fields = needy.sweep_at("tiny", {"task.options.source": "a.txt"}).base
    assert fields["task"]["options"] == {"pairs": 4, "source": "a.txt"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choose": ["train.rl"]}, "study small: choose: there is no axis 'train.rl'"),
        ({"tables": [{**SMALL["tables"][0], "rows": "stak"}]}, "did you mean 'stack'"),
        ({"scales": {"tiny": {"about": "", "only": {"stack": ["Mamba2"]}}}}, "only.stack: 'Mamba2' is not on it"),
        ({"scales": {"tiny": {"about": "", "only": {"stak": []}}}}, "only.stak: there is no such axis"),
        ({"scales": {"tiny": {"about": "", "sweep": {"axes": {"train.lr": []}}}}}, "scale tiny: axes: train.lr"),
        ({"published": [{"at": {"with": 1}, "value": 1, "source": "x"}]}, "published: there is no axis 'with'"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError) as raised:
        study(**changes).check()
    assert message in str(raised.value)


TABLE, FIGURE = SMALL["tables"][0], {"title": "Curve", "metric": "test/accuracy", "x": "length", "by": "stack"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": [{**TABLE, "metric": "test/acuracy"}]}, "tables: Accuracy: 'mqar' measures no 'test/acuracy'"),
        ({"tables": [{**TABLE, "metric": "test/accuracy@length=128"}]}, "measures no 'test/accuracy@length=128'"),
        ({"figures": [FIGURE]}, "figures: Curve: 'mqar' measures no 'test/accuracy' over length"),
        ({"figures": [{**FIGURE, "x": "position"}]}, "'mqar' measures no 'test/accuracy' over position"),
    ],
)
def test_a_metric_that_no_run_measures_is_refused_before_any_is_queued(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError) as raised:
        study(**changes).checked_sweep("tiny")
    assert message in str(raised.value)


def test_metrics_along_an_axis_of_the_task_are_known() -> None:
    figures = [FIGURE, {**FIGURE, "metric": "test/accuracy@pairs=8"}]
    found = study(figures=figures, tables=[{**TABLE, "metric": "test/accuracy@length=128,pairs=8"}])
    options = {"task.options.test_lengths": [64, 128], "task.options.test_pairs": [8]}
    with pytest.raises(LabError, match="measures no 'test/accuracy' over length"):
        found.checked_sweep("tiny", options)  # every length was measured with 8 pairs
    assert study(figures=figures[1:]).checked_sweep("tiny", options).members()


def test_a_scale_may_show_another_metric_of_its_own_tasks() -> None:
    longer = {"tiny": {"about": "small", "metrics": {"test/accuracy@length=128": "test/accuracy"}}}
    table = {**TABLE, "metric": "test/accuracy@length=128"}
    assert study(tables=[table], scales=longer).checked_sweep("tiny").members()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "it holds no fields"),
        ("title: [", "it cannot be read"),
        (yaml.safe_dump({**SMALL, "tables": []}), "study broken.tables"),
        (yaml.safe_dump({**SMALL, "titel": "x"}), "unknown option 'titel'"),
        (
            yaml.safe_dump({**SMALL, "tables": [{**SMALL["tables"][0], "metric": "accuracy"}]}),
            "'accuracy' names no metric",
        ),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(LabError) as raised:
        read_study(file)
    assert message in str(raised.value)

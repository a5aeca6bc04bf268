"""A sweep's rows and figure, from what a lab knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimeralab import Lab, SweepSpec
from chimeralab.events import Metrics
from chimeralab_webui import comparing, sweeping


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab.open(tmp_path) as opened:
        yield opened


def measured(lab: Lab, axes: dict[str, Any]) -> Any:
    """A sweep of which every run but the last has ended, with accuracies 0.1, 0.2, …"""
    base = {"stack": {"pattern": "attention[heads=2]", "d_model": 16}, "task": {"name": "mqar"}}
    sweep = lab.sweep(SweepSpec.read({"name": "small", "base": base, "axes": axes, "seeds": [0, 1]}))
    members = lab.store.sweep_members(sweep)
    for number, member in enumerate(members[:-1], 1):
        attempt = lab.store.claim(member.run_id, 0)
        assert attempt is not None
        lab.store.begin(member.run_id, attempt, {})
        values = {"validation/accuracy": number / 10, "test/accuracy": number / 20}
        event = Metrics(seq=1, step=1, tokens=1, seconds=1.0, values=values)
        lab.store.append(member.run_id, attempt, [event])
        lab.store.finish(member.run_id, attempt, "completed")
    return lab.sweep_table("small")


def test_a_row_says_where_its_point_stands_and_what_its_seeds_have_shown(lab: Lab) -> None:
    table = measured(lab, {"train.lr": {"log": [0.01, 0.1, 2]}, "train.steps": [5, 9]})
    first, *_, last = sweeping.rows(table)
    assert sweeping.axes(table) == ["train.lr", "train.steps"]
    assert (first["values"], first["statuses"]) == ([0.01, 5], {"completed": 2})
    assert (first["validation"]["mean"], first["validation"]["n"]) == (pytest.approx(0.15), 2)
    assert first["test"]["mean"] == pytest.approx(0.075)
    assert (last["validation"]["n"], last["statuses"]) == (1, {"completed": 1, "queued": 1})
    assert [row["best"] for row in sweeping.rows(table)] == [False, False, True, False]  # the last lacks a seed


def test_the_figure_has_a_line_for_each_place_on_the_other_axes(lab: Lab) -> None:
    table = measured(lab, {"train.lr": {"log": [0.01, 0.1, 2]}, "train.steps": [9, 5]})
    figure = sweeping.over_axis(table, "train.lr", table.metric)
    assert [(trace["name"], trace["x"]) for trace in figure["data"]] == [
        ("train.steps=9", [0.01, 0.1]),
        ("train.steps=5", [0.01, 0.1]),
    ]
    assert figure["data"][0]["y"] == pytest.approx([0.15, 0.55])
    assert figure["data"][0]["error_y"]["array"][0] == pytest.approx(0.05)
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert figure["layout"]["xaxis"]["ticktext"] == ["0.01", "0.1"]  # Plotly would write 10m
    across = sweeping.over_axis(table, "train.steps", table.metric)
    assert across["data"][0]["x"] == [5, 9]


def test_named_points_are_not_joined(lab: Lab) -> None:
    stacks = {"A": {"stack.d_model": 16}, "B": {"stack.d_model": 32}}
    table = measured(lab, {"width": stacks, "train.lr": [0.01, 0.1]})
    named = sweeping.over_axis(table, "width", table.metric)
    assert named is not None
    assert [(trace["mode"], trace["x"]) for trace in named["data"]] == [("markers", ["A", "B"])] * 2
    numbered = sweeping.over_axis(table, "train.lr", table.metric)
    assert numbered is not None
    assert {trace["mode"] for trace in numbered["data"]} == {"lines+markers"}


def test_compared_members_are_one_row_over_their_seeds(lab: Lab) -> None:
    table = measured(lab, {"train.lr": [0.01, 0.1]})
    shown = comparing.over_seeds(lab.compare(table.run_ids))
    assert shown["metrics"] == ["test/accuracy", "validation/accuracy"]
    first, second = shown["groups"]
    assert (first["runs"], first["values"][1]["mean"], first["values"][1]["n"]) == (2, pytest.approx(0.15), 2)
    assert second["values"][1]["n"] == 1
    assert shown["pairs"] == []  # one seed alone was completed by both
    assert comparing.over_seeds(lab.compare(table.run_ids[:1]))["groups"] == []


def test_what_was_not_measured_is_not_drawn(lab: Lab) -> None:
    table = measured(lab, {"train.lr": [0.01, 0.1]})
    assert sweeping.over_axis(table, "train.lr", "test/nothing") is None

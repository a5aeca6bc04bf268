"""Tables of what was measured along one axis and over two, as `show` and `compare` print them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from called import Call

from chimeralab import Lab, RunSpec
from chimeralab.cli.series import plain
from chimeralab.events import Metrics
from chimeralab.runs.spec import TaskSpec
from chimeralab.stack.compose import compose

VALUES = {
    "train/loss": 1.25,
    "test/accuracy": 0.75,
    "test/accuracy@length=1024": 0.5,
    "test/accuracy@length=64": 0.875,
    "test/accuracy@depth=0.5,length=64": 0.125,
    "test/accuracy@depth=1.0,length=128": 0.25,
    "test/loss@noise=0.5": 3.0,
}


@pytest.fixture
def measured(home: Path) -> list[int]:
    """Two runs that have ended, the second without the grid."""
    with Lab.open(home) as lab:
        found = []
        for values in (VALUES, {"test/accuracy@length=64": 0.5}):
            run = lab.submit(RunSpec(stack=compose("attention", d_model=32), task=TaskSpec(name="parity")))
            attempt = lab.store.claim(run, 0)
            assert attempt is not None
            lab.store.begin(run, attempt, {})
            lab.store.append(run, attempt, [Metrics(seq=1, step=1, tokens=64, seconds=1.0, values=values)])
            found.append(run)
        return found


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_run_is_shown_with_a_table_for_each_curve_and_grid(call: Call, measured: list[int]) -> None:
    shown = lines(call("show", str(measured[0])).out)
    for row in (
        ["test/accuracy", "0.75", "0.75", "0.75"],
        ["test/loss@noise=0.5", "3", "3", "3"],
        ["64", "0.875"],
        ["1024", "0.500"],
        ["test/accuracy", "by", "depth", "and", "length"],
        ["depth", "\\", "length", "64", "128"],
        ["0.5", "0.125"],
        ["1.0", "0.250"],
    ):
        assert row in shown, row
    assert not any(row[:1] == ["test/accuracy@length=64"] for row in shown)


def test_a_run_without_a_name_shows_its_pattern_once_and_how_it_came_this_far(call: Call, measured: list[int]) -> None:
    shown = lines(call("show", str(measured[0])).out)
    assert shown.count(["attention"]) == 1
    told = [line[1:] for line in shown if line and line[0].count(":") == 2]
    assert told[:2] == [["queued"], ["queued", "→", "starting"]]


def test_compared_runs_stand_side_by_side(call: Call, measured: list[int]) -> None:
    first, second = map(str, measured)
    shown = lines(call("compare", first, second).out)
    assert ["length", "run", first, "run", second] in shown
    assert ["64", "0.875", "0.500"] in shown
    assert ["1024", "0.500"] in shown
    assert ["test/accuracy", "by", "depth", "and", "length,", "run", first] in shown
    rows = json.loads(call("compare", first, second, "--json").out)["rows"]
    assert rows[0]["held_out"] == {name: value for name, value in VALUES.items() if name != "train/loss"}


def test_what_stands_alone_is_plain() -> None:
    assert plain({"test/recall@10": 1.0}) == ["test/recall@10"]
    assert plain(VALUES) == ["train/loss", "test/accuracy", "test/loss@noise=0.5"]

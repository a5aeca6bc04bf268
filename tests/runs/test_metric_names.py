"""The names of metrics, read and written."""

from __future__ import annotations

import pytest

from chimeralab.errors import SpecError
from chimeralab.metrics import MetricName, parse, parse_axes, series


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("validation/loss", ("validation", "loss", ())),
        ("test/accuracy@length=512", ("test", "accuracy", (("length", 512),))),
        ("test/loss@position=128", ("test", "loss", (("position", 128),))),
        ("test/accuracy@depth=0.5,length=1024", ("test", "accuracy", (("depth", 0.5), ("length", 1024)))),
        ("lm_eval/arc_easy/acc@form=given-once", ("lm_eval", "arc_easy/acc", (("form", "given-once"),))),
        ("test/loss@noise=1e-05", ("test", "loss", (("noise", 1e-5),))),
    ],
)
def test_names_come_apart_and_together(name: str, parts: tuple) -> None:
    assert parse(name) == MetricName(*parts)
    assert str(parse(name)) == name


def test_axes_have_one_order() -> None:
    assert str(parse("test/accuracy@length=4,depth=0.25")) == "test/accuracy@depth=0.25,length=4"
    assert (
        str(parse("test/loss@length=8").at({"depth": 0.5, "position": 4})) == "test/loss@depth=0.5,length=8,position=4"
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "loss",
        "/loss",
        "test/",
        "test/loss@",
        "test/loss@length",
        "test/loss@length=",
        "test/loss@=4",
        "test/loss@length=4,length=5",
        "test/loss@length=4,,",
        "test/loss@length=4 5",
    ],
)
def test_other_names_are_refused_with_the_form(name: str) -> None:
    with pytest.raises(SpecError, match="split/metric@axis=value"):
        parse(name)


def test_what_has_axes_becomes_curves_and_grids_over_all_runs() -> None:
    measured = {
        1: {"train/loss": 1.0, "test/loss": 2.0, "test/loss@length=1024": 3.0, "test/loss@length=64": 4.0},
        2: {"test/loss@length=64": 5.0, "test/a@depth=0.5,length=8": 6.0, "test/a@depth=1.0,length=8": 7.0},
        3: {"test/b@length=8": 8.0, "test/c@depth=0.5,length=8": 9.0, "test/c@depth=1.0,length=4": 10.0},
    }
    found = {(one.metric, one.axes): one for one in series(measured)}
    assert list(found) == [
        ("test/a@length=8", ("depth",)),
        ("test/c", ("depth", "length")),
        ("test/loss", ("length",)),
    ]
    assert found["test/loss", ("length",)].values == ((64, 1024),)
    assert found["test/loss", ("length",)].points == {1: {(1024,): 3.0, (64,): 4.0}, 2: {(64,): 5.0}}
    assert found["test/a@length=8", ("depth",)].points == {2: {(0.5,): 6.0, (1.0,): 7.0}}
    assert found["test/c", ("depth", "length")].points == {3: {(0.5, 8): 9.0, (1.0, 4): 10.0}}
    assert parse_axes("") == {}


def test_names_of_another_form_are_passed_over() -> None:
    assert series({1: {"validation/recall@10": 1.0, "validation/recall@20": 2.0, "odd": 3.0}}) == []


def test_words_come_after_numbers() -> None:
    (one,) = series({1: {f"test/loss@kind={value}": 0.0 for value in ("b", "a", "10", "9")}})
    assert one.values == ((9, 10, "a", "b"),)

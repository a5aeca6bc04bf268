"""The names of metrics, read and written."""

from __future__ import annotations

import pytest

from chimeralab.errors import SpecError
from chimeralab.metrics import MetricName, grouped, parse, parse_axes


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


def test_names_are_grouped_by_axes_and_values_rise() -> None:
    names = ["train/loss", "test/loss@length=1024", "test/loss@length=64", "test/loss", "test/a@depth=0.5,length=8"]
    found = grouped(names)
    assert list(found) == [("length",), ("depth", "length")]
    assert [dict(name.axes)["length"] for name in found["length",]["test/loss"]] == [64, 1024]
    assert parse_axes("") == {}

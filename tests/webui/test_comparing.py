"""Fronts, best values, exports and smoothing."""

from __future__ import annotations

import math

import pytest

from chimeralab.comparison import ComparedRun, Comparison
from chimeralab_webui import comparing, curves, over_axes

LOSS, ACCURACY, DECODE = (comparing.BY_KEY[key] for key in ("loss", "accuracy", "decode_ms"))


def compared(run: int, **values: object) -> ComparedRun:
    return ComparedRun(id=run, name=f"run {run}", pattern="attention", task="text", status="completed", **values)


def comparison(*runs: ComparedRun) -> Comparison:
    return Comparison(rows=list(runs), differences={})


def test_front_holds_the_points_that_none_beats_in_both() -> None:
    assert comparing.front([(1, 5), (2, 3), (3, 4), (4, 1)], DECODE, LOSS) == [0, 1, 3]


def test_front_turns_with_a_measure_of_which_more_is_better() -> None:
    assert comparing.front([(1, 5), (2, 3), (3, 6)], DECODE, ACCURACY) == [0, 2]


def test_equal_points_are_both_on_the_front() -> None:
    assert comparing.front([(1, 1), (1, 1)], DECODE, LOSS) == [0, 1]


def test_best_is_marked_in_the_right_direction() -> None:
    rows = comparing.rows(comparison(compared(1, loss=2.0, accuracy=0.4), compared(2, loss=3.0, accuracy=0.5)), None)
    assert [row["best"] for row in rows] == [["loss"], ["accuracy"]]


def test_diverged_run_is_never_the_best() -> None:
    rows = comparing.rows(comparison(compared(1, loss=math.nan), compared(2, loss=2.0), compared(3, loss=3.0)), None)
    assert [row["best"] for row in rows] == [[], ["loss"], []]


def test_contexts_are_those_that_all_profiled_runs_share() -> None:
    both = comparison(compared(1, decode_ms={16: 1.0, 32: 2.0}), compared(2, decode_ms={32: 1.0}), compared(3))
    assert comparing.common_contexts(both) == [32]


def test_table_has_a_column_for_each_context() -> None:
    text = comparing.as_csv(comparison(compared(1, decode_ms={16: 1.5}), compared(2, decode_ms={32: 2.5})))
    head, first, second = text.splitlines()
    assert "decode_ms@16,decode_ms@32" in head
    assert "1.5," in first
    assert "2.5" in second


def test_points_without_both_measures_are_not_drawn() -> None:
    rows = comparing.rows(comparison(compared(1, loss=2.0), compared(2, loss=3.0, decode_ms={16: 1.0})), 16)
    assert [trace["name"] for trace in comparing.pareto(rows, "decode_ms", "loss")["data"]] == ["run 2 #2"]


LENGTHS = {"test/accuracy@length=64": 0.5, "test/accuracy@length=1024": 0.25, "test/accuracy": 0.75}
DEPTHS = {f"test/loss@depth={d},length={n}": d * n for d in (0.5, 1.0) for n in (8, 16)}


def test_a_metric_over_one_axis_is_a_curve_for_each_run() -> None:
    reply = over_axes.reply({1: LENGTHS, 2: {"test/accuracy@length=64": math.nan}}, ["a", "b"], None)
    assert [(trace["x"], trace["y"]) for trace in reply["figure"]["data"]] == [
        ([64, 1024], [0.5, 0.25]),
        ([64], [None]),
    ]
    assert reply["figure"]["layout"]["xaxis"]["type"] == "log"
    assert reply["options"]["measured"] == [{"value": "test/accuracy length", "label": "Accuracy by length (test)"}]


def test_a_metric_over_two_axes_is_a_heat_map_for_each_run_in_one_scale() -> None:
    runs = {1: LENGTHS | DEPTHS, 2: {"test/loss@depth=0.5,length=16": 1.0}, 3: LENGTHS}
    reply = over_axes.reply(runs, ["a", "<b>", "c"], {"choices": {"measured": "test/loss depth length"}})
    first, second = reply["figure"]["data"]
    assert (first["x"], first["y"], first["z"]) == (["8", "16"], ["0.5", "1.0"], [[4, 8], [8, 16]])
    assert second["z"] == [[None, 1.0], [None, None]]
    assert [note["text"] for note in reply["figure"]["layout"]["annotations"]] == ["a", "&lt;b&gt;"]
    assert [option["value"] for option in reply["options"]["measured"]] == [
        "test/accuracy length",
        "test/loss depth length",
    ]


def test_ticks_are_the_values_themselves_or_the_powers_of_two_among_many() -> None:
    few, many = [8, 96, 512], [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96]
    axes = []
    for values in (few, many):
        runs = {1: {f"test/loss@position={at}": 1.0 for at in values}}
        axes.append(over_axes.reply(runs, ["a"], None)["figure"]["layout"]["xaxis"])
    assert [axis["ticktext"] for axis in axes] == [["8", "96", "512"], ["1", "2", "4", "8", "16", "32", "64"]]
    assert {axis["type"] for axis in axes} == {"log"}


def test_names_of_runs_are_text_in_every_figure() -> None:
    name = '<a href="https://example.org">%{x} & more</a>'
    shown = '&lt;a href="https://example.org"&gt;&#37;{x} &amp; more&lt;/a&gt;'
    rows = comparing.rows(comparison(compared(1, loss=2.0, decode_ms={16: 1.0}).model_copy(update={"name": name})), 16)
    curve, maps = (over_axes.reply({1: values}, [name], None)["figure"]["data"][0] for values in (LENGTHS, DEPTHS))
    point = comparing.pareto(rows, "decode_ms", "loss")["data"][0]
    assert [trace["name"] for trace in (point, curve, maps)] == [f"{shown} #1", shown, shown]
    assert [trace["hovertemplate"].partition("<extra>")[2] for trace in (curve, maps)] == [f"{shown}</extra>"] * 2


def test_without_axes_there_is_nothing_to_draw() -> None:
    assert over_axes.reply({1: {"test/loss": 1.0, "test/loss@length=8": 2.0}}, ["a"], None) == {"figure": {"data": []}}


def test_a_test_is_no_curve() -> None:
    assert curves.quantities(["validation/loss", "test/loss@length=8", "test/exact_match"]) == [
        {"value": "loss", "label": "Loss (nats)"}
    ]


def test_smoothing_starts_without_bias_and_passes_over_nan() -> None:
    assert curves.smoothed([2.0, 2.0, math.nan, 2.0], 0.9)[::3] == pytest.approx([2.0, 2.0])


def test_splits_of_one_quantity_are_offered_once() -> None:
    offered = curves.quantities(["train/loss", "validation/loss", "train/gradient_norm", "validation/accuracy"])
    assert [option["value"] for option in offered] == ["loss", "accuracy", "gradient_norm"]

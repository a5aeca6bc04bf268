"""Tables take the point that validation chose and report its seeds on test, beside what was published."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from chimeralab.studies import StudySpec
from chimeralab.studies.report import html, markdown
from chimeralab.studies.results import Measured, Results, results

STUDY = StudySpec.model_validate(
    {
        "name": "widths",
        "title": "Widths",
        "question": "How wide?",
        "text": "Two stacks, a < b.",
        "sweep": {
            "base": {"stack": {"pattern": "attention x2"}, "task": {"name": "mqar"}},
            "axes": {
                "stack": {"A": {"stack.pattern": "attention x2"}, "M": {"stack.pattern": "mamba x2"}},
                "stack.d_model": [64, 128],
                "train.lr": [0.001, 0.01],
            },
            "seeds": [0, 1, 2],
        },
        "scales": {"tiny": {"about": "Small."}},
        "choose": ["train.lr"],
        "tables": [{"title": "Accuracy", "metric": "test/accuracy", "rows": "stack", "columns": "stack.d_model"}],
        "figures": [
            {"title": "Over width", "metric": "test/accuracy", "x": "stack.d_model", "by": "stack"},
            {"title": "Over length", "metric": "test/accuracy", "x": "length", "by": "stack"},
        ],
        "published": [
            {"at": {"stack": "A", "stack.d_model": 64}, "value": 0.55, "source": "table 1"},
            {"at": {"stack": "M"}, "value": [0.1, 0.2], "source": "table 2"},
        ],
        "findings": {"tiny": "A wins.\n\nM does not."},
    }
)


def accuracy(stack: str, width: int, lr: float, seed: int) -> tuple[float, float]:
    """(validation, test): the higher rate is better on test, but validation says so for the wide ones alone."""
    base = (0.6 if stack == "A" else 0.3) + (0.1 if width == 128 else 0) + 0.01 * seed
    better = lr == (0.01 if width == 128 else 0.001)
    return base + (0.05 if better else 0), base + (0.2 if lr == 0.01 else 0)


def found(change: Callable[[Measured], Measured | None] = lambda member: member) -> Results:
    sweep = STUDY.sweep_at("tiny")
    members = sweep.members()
    measured = []
    for member in members:
        point = member.point
        validation, test = accuracy(point["stack"], point["stack.d_model"], point["train.lr"], member.seed)
        values = {"validation/accuracy": validation, "test/accuracy": test}
        values |= {f"test/accuracy@length={n}": test * 64 / n for n in (64, 128)}
        measured.append(change(Measured(point, member.seed, "completed", values)))
    return results(STUDY, "tiny", sweep.resolved(members), [member for member in measured if member is not None])


def test_a_cell_is_the_test_of_what_validation_chose() -> None:
    table = found().tables[0]
    narrow, wide = table.cells["A", 64], table.cells["A", 128]
    assert narrow.chosen == {"train.lr": 0.001}
    assert wide.chosen == {"train.lr": 0.01}
    assert narrow.test is not None
    assert wide.test is not None
    assert narrow.test.mean == pytest.approx(0.61)  # 0.81 was to be had on test
    assert wide.test.mean == pytest.approx(0.91)
    assert narrow.test.n == wide.test.n == 3
    assert narrow.by_seed == pytest.approx({0: 0.6, 1: 0.61, 2: 0.62})


def test_a_published_mean_stands_beside_the_mean_over_columns() -> None:
    table = found().tables[0]
    assert table.columns == [64, 128, "mean"]
    mean = table.cells["M", "mean"]
    assert mean.test is not None
    assert mean.test.mean == pytest.approx((0.31 + 0.61) / 2)
    assert mean.test.n == 3  # seeds, not cells
    assert [value.value for value in mean.published] == [(0.1, 0.2)]
    assert table.cells["M", 64].published == ()


@pytest.mark.parametrize("status", ["queued", "failed"])
def test_there_is_no_mean_over_columns_of_which_one_has_not_completed(status: str) -> None:
    def halfway(member: Measured) -> Measured:
        if member.point["stack.d_model"] == 64 or member.point["stack"] == "A":
            return member
        return Measured(member.point, member.seed, status, {})

    half = found(halfway)
    cells = half.tables[0].cells
    assert cells["M", 64].test is not None
    assert cells["M", 128].test is None
    assert cells["M", "mean"].test is None
    assert cells["M", "mean"].published
    assert cells["A", "mean"].test is not None
    assert [curve.label for curve in half.figures[1].curves] == ["A"]  # over length: a mean over both widths


def test_rows_are_compared_over_columns_and_seeds() -> None:
    (pair,) = found().tables[0].differences
    assert (pair.a, pair.b, pair.n) == ("M", "A", 6)
    assert pair.difference.mean == pytest.approx(-0.3)
    assert pair.p == pair.adjusted == 2 / 2**6


def test_members_that_did_not_complete_are_left_out_and_counted() -> None:
    def failed(member: Measured) -> Measured:
        bad = member.point["stack"] == "M" and member.point["train.lr"] == 0.01
        return Measured(member.point, member.seed, "failed" if bad else "completed", member.metrics)

    partial = found(failed)
    assert partial.ended == {"completed": 18, "failed": 6}
    assert partial.tables[0].cells["M", 128].chosen == {"train.lr": 0.001}
    nothing = found(lambda member: Measured(member.point, member.seed, "queued", {}))
    assert nothing.tables[0].cells["A", 64].test is None
    assert "24 queued" in markdown(nothing)


def test_a_point_that_lacks_a_seed_is_not_chosen() -> None:
    def lost(member: Measured) -> Measured | None:
        place = (member.point["stack"], member.point["stack.d_model"], member.point["train.lr"], member.seed)
        return None if place == ("A", 64, 0.001, 0) else member

    assert found(lost).tables[0].cells["A", 64].chosen == {"train.lr": 0.01}


def test_figures_run_over_an_axis_of_the_sweep_or_of_the_metric() -> None:
    width, length = found().figures
    assert [(curve.label, curve.x) for curve in width.curves] == [("A", [64, 128]), ("M", [64, 128])]
    assert [value.mean for value in width.curves[0].y] == pytest.approx([0.61, 0.91])
    assert [curve.x for curve in length.curves] == [[64, 128], [64, 128]]
    assert [value.mean for value in length.curves[0].y] == pytest.approx([0.76, 0.38])  # over both widths


def test_reports_say_n_intervals_and_what_is_apart() -> None:
    text = markdown(found())
    assert "| A | 0.610 [0.600, 0.620]<br>published 0.55 | 0.910 [0.900, 0.920] |" in text
    assert "| A | 64 | 0.610 | [0.600, 0.620] | 3 | 0.001 | 0.55 | table 1 |" in text
    assert "- A wins.\n- M does not." in text
    assert "24 members: 24 completed." in text
    assert "the best mean of validation/accuracy was taken" in text
    apart = text[text.index("## Apart from what was published") :].split("\n\n")[1].splitlines()
    assert len(apart) == 1
    assert "M, mean" in apart[0]
    assert "0.1 to 0.2 published (table 2)" in apart[0]


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = html(found())
    assert "Two stacks, a &lt; b." in page
    assert page.count("Plotly.newPlot('figure'") == 1
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="', page)
    drawn: list[Any] = [
        page.index(title) for title in ("<h2>Over width", "<h2>Over length", "<h2>Findings", "<h2>Details")
    ]
    assert drawn == sorted(drawn)

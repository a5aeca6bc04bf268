"""Questions to the store: lists, orders, curves, and plans that do not read whole tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from samples import curve, new_run, points, running
from sqlalchemy import event

from chimeralab.errors import StoreError
from chimeralab.store import NewMember, RunFilter, Store

HOSTILE = [
    "O'Brien",
    '"quoted"',
    "<script>alert(1)</script>",
    "'; DROP TABLE runs; --",
    "../../etc",
    "50%_\\",
    "名",
]


def names(store: Store, **wanted: Any) -> list[str]:
    return [run.name for run in store.runs(RunFilter(**wanted)).rows]


def test_page_counts_all_that_the_filter_selects(store: Store) -> None:
    for number in range(7):
        store.create_run(new_run(f"run {number}"))
    page = store.runs(RunFilter(limit=3, offset=3))
    assert page.total == 7
    assert [run.name for run in page.rows] == ["run 3", "run 2", "run 1"]
    assert store.runs(RunFilter(offset=50)).rows == []


def test_filters_narrow_the_list(store: Store) -> None:
    store.create_run(new_run("small", project="a", tags=("cheap",)))
    store.create_run(new_run("large", project="b", task="text", notes="Needs an H200"))
    done = running(store, "done", project="a", pattern="12 * attention")
    store.finish(done, 1, "completed")

    assert names(store, project="a", order_by="name") == ["done", "small"]
    assert names(store, status="completed") == ["done"]
    assert names(store, status=["queued", "completed"], order_by="id") == ["small", "large", "done"]
    assert names(store, task="text") == ["large"]
    assert names(store, tag="cheap") == ["small"]
    assert names(store, text="h200") == ["large"]
    assert names(store, text="ATTENTION") == ["done"]
    assert names(store, project="nobody's") == []


def test_archived_runs_are_out_of_the_list_but_not_gone(store: Store) -> None:
    old, new = store.create_run(new_run("old")), store.create_run(new_run("new"))
    store.archive([old])
    assert names(store) == ["new"]
    assert names(store, archived=True) == ["old"]
    assert names(store, archived=None, order_by="id") == ["old", "new"]
    store.archive([old, new], archived=False)
    assert store.runs().total == 2


def test_leaderboard_puts_runs_without_a_value_last_both_ways(store: Store) -> None:
    for name, values in {
        "mid": [2.0, 0.5, 2.0],
        "best": [1.0],
        "nan": [math.nan],
        "worst": [math.inf],
    }.items():
        run_id = running(store, name)
        store.append(run_id, 1, curve(dict(enumerate(values))))
    running(store, "empty")

    assert names(store, order_by="metric:loss")[:3] == ["best", "mid", "worst"]
    assert names(store, order_by="-metric:loss")[:3] == ["worst", "mid", "best"]
    assert names(store, order_by="metric:loss:min")[:2] == ["mid", "best"]
    assert set(names(store, order_by="-metric:loss:max")[3:]) == {"nan", "empty"}
    assert len(names(store, order_by="metric:nobody measured this")) == 5


def test_metric_names_may_contain_colons(store: Store) -> None:
    for name, value in {"b": 2.0, "a": 1.0}.items():
        store.append(running(store, name), 1, curve({1: value}, "eval:loss"))
    assert names(store, order_by="metric:eval:loss") == ["a", "b"]
    assert names(store, order_by="-metric:eval:loss:last") == ["b", "a"]


def test_unknown_order_is_an_error_that_says_what_would_do(store: Store) -> None:
    with pytest.raises(StoreError, match=r"cannot be ordered by 'creatd'\. did you mean 'created'"):
        store.runs(RunFilter(order_by="-creatd"))


@pytest.mark.parametrize("order", ["id", "created", "started", "ended", "name", "project", "status", "task"])
def test_every_order_turns_round(store: Store, order: str) -> None:
    for name in "ab":
        store.finish(running(store, name, project=f"p{name}", task=name), 1, "completed")
    assert names(store, order_by=order) == list(reversed(names(store, order_by=f"-{order}")))


def test_run_is_found_by_id_or_by_its_only_name(store: Store) -> None:
    first, second = store.create_run(new_run("mamba")), store.create_run(new_run("hyena"))
    store.create_run(new_run("hyena"))
    assert store.find(str(first)) == first
    assert store.find("mamba") == first
    with pytest.raises(StoreError, match=rf"2 runs have this name\. Use an id: {second}, {second + 1}"):
        store.find("hyena")
    with pytest.raises(StoreError, match=r"did you mean 'mamba'\?"):
        store.find("mambo")


@pytest.mark.parametrize("ask", [Store.run, Store.retry, Store.request_cancel])
def test_unknown_run_is_named_in_the_error(store: Store, ask: Callable[[Store, int], Any]) -> None:
    with pytest.raises(StoreError, match="run 17: there is no such run"):
        ask(store, 17)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_data(store: Store, hostile: str) -> None:
    run_id = running(store, hostile, project=hostile, task=hostile, notes=hostile, tags=(hostile,))
    other = store.create_run(new_run("other"))
    store.append(run_id, 1, curve({1: 1.0}, hostile))
    store.tag(other, add=[hostile])
    store.tag(other, remove=[hostile])

    run = store.run(store.find(hostile))
    assert [run.name, run.project, run.task, run.notes, *run.tags] == [hostile] * 5
    assert store.metrics(run_id) == [hostile]
    assert points(store, run_id, hostile) == [(1, 1.0)]
    assert names(store, text=hostile, project=hostile, tag=hostile, order_by=f"metric:{hostile}") == [hostile]
    assert store.run(other).tags == ()


def test_character_that_no_database_holds_does_not_stop_a_run(store: Store) -> None:
    run_id = running(store, "nul \0 and surrogate \ud800")
    store.append(run_id, 1, curve({1: 1.0}, "loss\0"))
    assert store.run(run_id).name == "nul \N{REPLACEMENT CHARACTER} and surrogate ?"
    assert store.metrics(run_id) == ["loss\N{REPLACEMENT CHARACTER}"]


def test_notes_names_and_tags_can_be_changed(store: Store) -> None:
    run_id = store.create_run(new_run(tags=("a", "b")))
    store.tag(run_id, add=["b", "c"], remove=["a"])
    store.note(run_id, "diverged after warm-up")
    store.rename(run_id, "second try")
    run = store.run(run_id)
    assert (run.tags, run.notes, run.name) == (("b", "c"), "diverged after warm-up", "second try")
    assert store.tags() == ["b", "c"]


def test_curve_can_be_drawn_over_tokens_and_seconds(store: Store) -> None:
    run_id = running(store)
    store.append(run_id, 1, curve({4: 3.0, 8: 2.0}))
    assert store.curve(run_id, "loss", x="tokens").x == [40, 80]
    assert store.curve(run_id, "loss", x="seconds").x == [1.0, 2.0]
    assert store.curve(run_id, "loss").steps == [4, 8]
    assert store.curve(run_id, "accuracy").y == []


def test_thinned_curve_keeps_its_ends_its_spikes_and_its_nan(store: Store) -> None:
    run_id = running(store)
    values = dict.fromkeys(range(2000), 1.0)
    values |= {0: 7.0, 700: 99.0, 701: -99.0, 1200: math.nan, 1500: math.inf, 1999: 0.5}
    store.append(run_id, 1, curve(values))

    thinned = store.curve(run_id, "loss", max_points=50)
    drawn = dict(zip(thinned.steps, thinned.y, strict=True))
    assert len(drawn) <= 50
    assert {step: drawn[step] for step in (0, 700, 701, 1500, 1999)} == {
        0: 7.0,
        700: 99.0,
        701: -99.0,
        1500: math.inf,
        1999: 0.5,
    }
    assert math.isnan(drawn[1200])
    assert thinned.steps == sorted(thinned.steps)
    assert store.curve(run_id, "loss", max_points=2000).steps == list(range(2000))


def test_events_can_be_followed_and_read_from_the_end(store: Store) -> None:
    run_id = running(store)
    every = store.events(run_id)
    assert [event.payload["to"] for event in every] == ["queued", "starting", "running"]
    assert store.events(run_id, after_id=every[0].id) == every[1:]
    assert store.events(run_id, limit=2) == every[:2]
    assert store.events(run_id, limit=2, newest=True) == every[1:]


def test_summaries_of_many_runs_come_in_one_answer(store: Store) -> None:
    one, two = running(store, "one"), running(store, "two")
    store.append(one, 1, curve({1: 1.0}))
    found = store.summaries([two, one, *range(100_000, 140_000)])
    assert list(found)[:2] == [two, one]
    assert found[one]["loss"].last == 1.0
    assert found[two] == {}


READS: dict[str, Callable[[Store], Any]] = {
    "curve": lambda store: store.curve(1, "loss", max_points=100),
    "leaderboard": lambda store: store.runs(RunFilter(order_by="-metric:loss:min")),
    "list": lambda store: store.runs(RunFilter(project="tests", status="running", tag="x", text="y")),
    "run": lambda store: store.run(1),
    "metrics": lambda store: store.metrics(1),
    "summaries": lambda store: store.summaries([1, 2, 3]),
    "events": lambda store: store.events(1, kinds=["log"], after_id=5),
    "profiles": lambda store: store.profiles([1, 2]),
    "artifacts": lambda store: store.artifacts(1),
    "attempts": lambda store: store.attempts(1),
    "queued": lambda store: store.queued(after_id=1),
    "find": lambda store: store.find("run 1"),
    "sweep": lambda store: store.sweep("lr"),
    "active sweeps": lambda store: store.sweeps("active"),
    "members": lambda store: store.sweep_members(1),
    "owner": lambda store: store.owner(1),
    "curves of a sweep": lambda store: store.sweep_curves(1, "loss"),
    "active": lambda store: store.active(),
}


@pytest.mark.parametrize("name", READS)
def test_no_question_reads_a_whole_table(store: Store, name: str) -> None:
    for number in range(3):
        store.append(running(store, f"run {number}", tags=("x",)), 1, curve({1: 1.0}))
    store.put_sweep("lr", {}, [NewMember({}, 0, new_run())], wanted=1)
    with plans(store) as lines:
        READS[name](store)
    assert lines
    assert [line for line in lines if re.search(r"\bSCAN \w|Seq Scan", line)] == []


@contextmanager
def plans(store: Store) -> Iterator[list[str]]:
    """Collects the plan of every statement, as the database explains it."""
    lines: list[str] = []
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}

    def collect(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if connection.dialect.name == "postgresql":  # three rows are read at once unless it is forbidden
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(explain[connection.dialect.name] + statement, parameters)
        lines.extend(str(row[-1]) for row in cursor.fetchall())

    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", collect)
    try:
        yield lines
    finally:
        event.remove(engine, "before_cursor_execute", collect)

"""Prompts read once and twice, against the inner task's own sequences put together one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chimeralab.contracts import IGNORE
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.just_read_twice import RECALL, JustReadTwice, JustReadTwiceConfig

SMALL: dict[str, dict[str, Any]] = {
    "phonebook": {"entries": 4},
    "needle": {"sequence_length": 200},
    "mqar": {"vocab_size": 64, "sequence_length": 32},
    "induction": {"sequence_length": 20},
}


def make(recall: str = "phonebook", **options: Any) -> JustReadTwice:
    task = JustReadTwice(JustReadTwiceConfig(recall=recall, **options))
    task.check()
    return task


@pytest.mark.parametrize("recall", RECALL)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_prompt_comes_twice_and_the_answer_once(recall: str, split: Any) -> None:
    once, twice = (make(recall, options=SMALL[recall], times=times).batch(split, 2, 6) for times in (1, 2))
    written = recall in ("phonebook", "needle")
    for inputs, targets, both, asked in zip(once.inputs, once.targets, twice.inputs, twice.targets, strict=True):
        question = int((targets != IGNORE).nonzero()[0]) + 1 if written else len(inputs)
        prompt = inputs[:question]
        assert torch.equal(both[:question], prompt)
        assert torch.equal(both[question : question + len(inputs)], inputs)
        assert (asked[:question] == IGNORE).all()
        assert torch.equal(asked[question : question + len(inputs)], targets)
        assert (asked[question + len(inputs) :] == IGNORE).all()
        assert both.shape == (2 * len(inputs),)


@pytest.mark.parametrize("recall", RECALL)
def test_what_is_measured_is_what_the_inner_task_measures(recall: str) -> None:
    task = make(recall, options=SMALL[recall])
    batch = task.batch("test", 0, 4)
    right = torch.nn.functional.one_hot(batch.targets.clamp(min=0), task.vocab_size).float()
    found = task.metrics(task.measure(right, batch))
    assert found.keys() == task.inner.metrics(task.inner.measure(right, batch)).keys() == task.chance().keys()
    assert found["accuracy"] == 1


def test_evaluation_sets_are_those_of_the_inner_task_read_as_often() -> None:
    for times in (1, 2):
        sets = make("induction", options={"test_lengths": [8, 50]}, times=times).evaluation_sets()
        assert {place: task.batch("test", 0, 1).inputs.shape[1] for place, task in sets.items()} == {
            "length=8": 8 * times,
            "length=50": 50 * times,
        }


@pytest.mark.parametrize(
    ("recall", "options", "place"),
    [
        ("mqar", {"pairs": 40}, "sequence_length"),
        ("mqar", {"pears": 4}, "pears"),
        ("phonebook", {"entries": "many"}, "entries"),
        ("needle", {"test_lengths": [10, 256]}, "test_lengths"),
    ],
)
def test_bad_options_of_the_inner_task_are_named(recall: str, options: dict[str, Any], place: str) -> None:
    with pytest.raises(SpecError) as error:
        make(recall, options=options).evaluation_sets()
    assert error.value.place == f"task.options.options.{place}"

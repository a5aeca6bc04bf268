"""State tracking against its definitions: Python's own arithmetic, permutations applied one by one, class numbers."""

from __future__ import annotations

import itertools
import math
import re
from functools import reduce
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats

from chimeralab.contracts import IGNORE, Batch, Evaluation
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks.group_word_problem import Group, GroupWordProblem, multiplication_table
from chimeralab_plugins.tasks.modular_arithmetic import SIGNS, ModularArithmetic
from chimeralab_plugins.tasks.state_tracking import Parity, StateTrackingTask


def make(cls: type[StateTrackingTask], **options: Any) -> Any:
    task = cls(cls.Config(**options))
    task.check()
    return task


def asked(batch: Batch, padding: int) -> list[tuple[list[int], int]]:
    """The tokens of each sequence up to the one place that asks, and the answer; what follows must be padding."""
    found = []
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        (place,) = (i for i, target in enumerate(targets) if target != IGNORE)
        assert set(inputs[place + 1 :]) <= {padding}
        assert padding not in inputs[: place + 1]
        found.append((inputs[: place + 1], targets[place]))
    return found


def test_parity_is_that_of_the_ones_so_far() -> None:
    found = asked(make(Parity).batch("train", 3, 3000), 2)
    for bits, answer in found:
        assert set(bits) <= {0, 1}
        assert answer == bits.count(1) % 2
    lengths = np.bincount([len(bits) + 1 for bits, _ in found], minlength=41)
    assert stats.chisquare(lengths[3:]).pvalue > 1e-3
    ones = sum(bits.count(1) for bits, _ in found)
    assert ones / sum(len(bits) for bits, _ in found) == pytest.approx(0.5, abs=0.01)


def test_the_worked_examples_of_parity() -> None:
    """1010100 has three ones, 01111 four (neural Chomsky hierarchy, parity check)."""
    task = make(Parity, min_length=3, max_length=10)
    found = {tuple(bits): answer for step in range(40) for bits, answer in asked(task.batch("train", step, 512), 2)}
    assert found[1, 0, 1, 0, 1, 0, 0] == 1
    assert found[0, 1, 1, 1, 1] == 0


def expressions(batch: Batch, modulus: int = 5) -> list[tuple[str, int]]:
    letters = [*(str(n) for n in range(modulus)), *SIGNS]
    read = [("".join(letters[token] for token in tokens), answer) for tokens, answer in asked(batch, modulus + 4)]
    assert all(text[-1] == "=" and " " not in text for text, _ in read)
    return [(text[:-1], answer) for text, answer in read]


@pytest.mark.parametrize("modulus", [2, 5, 9])
@pytest.mark.parametrize("options", [{}, {"multiplication": False}, {"min_length": 40, "max_length": 256}])
def test_flat_expressions_have_the_value_that_python_gives(options: dict[str, Any], modulus: int) -> None:
    found = expressions(make(ModularArithmetic, modulus=modulus, **options).batch("train", 0, 500), modulus)
    for text, answer in found:
        assert re.fullmatch(r"\d([-+*]\d)*", text)
        assert answer == eval(text) % modulus
    assert any("*" in text for text, _ in found) == options.get("multiplication", True)


def test_lengths_of_flat_expressions_are_the_odd_ones() -> None:
    found = expressions(make(ModularArithmetic).batch("train", 0, 4000))
    lengths = np.bincount([len(text) + 2 for text, _ in found], minlength=41)
    assert lengths[::2].sum() == 0
    assert stats.chisquare(lengths[3:40:2]).pvalue > 1e-3
    signs = [text.count(sign) for sign in "+-*" for text in ["".join(text for text, _ in found)]]
    assert stats.chisquare(signs).pvalue > 1e-3


@pytest.mark.parametrize("multiplication", [None, True])
@pytest.mark.parametrize("options", [{}, {"min_length": 40, "max_length": 256}, {"min_length": 5, "max_length": 9}])
def test_nested_expressions_have_the_value_that_python_gives(
    options: dict[str, Any], multiplication: bool | None
) -> None:
    task = make(ModularArithmetic, brackets=True, multiplication=multiplication, **options)
    found = expressions(task.batch("train", 0, 500))
    for text, answer in found:
        assert answer == eval(text) % 5
        assert reduced(text) == "d"
    assert any("*" in text for text, _ in found) == bool(multiplication)


def reduced(text: str) -> str:
    """An expression of the grammar, each part of which becomes d from the inside out."""
    text = re.sub(r"\d", "d", text)
    before = ""
    while before != text:
        before = text
        text = re.sub(r"\(-?d\)|\(-?d[-+*]-?d\)", "d", text)
    return re.sub(r"^-d$", "d", text)


def nested(rng: np.random.Generator, length: int) -> str:
    """Written from the definition: an expression of exactly `length` tokens."""
    digit = str(rng.integers(5))
    if length < 5:
        return [digit, f"-{digit}", f"({digit})", f"(-{digit})"][length - 1]
    left = int(rng.integers(1, length - 3))
    return f"({nested(rng, left)}{'+-'[rng.integers(2)]}{nested(rng, length - 3 - left)})"


def test_statistics_of_nested_expressions_are_those_of_a_slow_generator() -> None:
    rng, n = np.random.default_rng(0), 2000
    slow = [nested(rng, max(int(rng.integers(3, 41)), 5) - 3) for _ in range(n)]
    ours = [text for text, _ in expressions(make(ModularArithmetic, brackets=True).batch("train", 0, n))]
    for count in (
        len,
        lambda text: text.count("("),
        lambda text: text.count("-"),
        lambda text: text.count("3"),
        lambda text: max(itertools.accumulate((c == "(") - (c == ")") for c in text)),
        lambda text: next((i for i, c in enumerate(text) if c in "01234"), 0),
    ):
        samples = [[count(text) for text in texts] for texts in (ours, slow)]
        values = np.unique(np.quantile(np.concatenate(samples), np.linspace(0, 1, 9), method="lower")[:-1])
        table = np.array([np.histogram(sample, [*values, np.inf])[0] for sample in samples])
        assert stats.chi2_contingency(table).pvalue > 1e-3, table


def permuted(group: str) -> list[tuple[int, ...]]:
    """S_n or A_n in lexicographic order, even ones known by the determinant of their matrices."""
    size = int(group[1:])
    every = itertools.permutations(range(size))
    return [p for p in every if group[0] == "S" or round(np.linalg.det(np.eye(size)[list(p)])) == 1]


@pytest.mark.parametrize("group", ["S3", "S5", "A5"])
def test_targets_are_the_products_of_permutations_so_far(group: str) -> None:
    elements = permuted(group)
    batch = make(GroupWordProblem, group=group, sequence_length=12).batch("train", 0, 64)
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        for t, target in enumerate(targets):
            # g₁ · … · g_t applied to each thing.
            last_first = inputs[t::-1]
            things = range(len(elements[0]))
            assert tuple(reduce(lambda x, g: elements[g][x], last_first, i) for i in things) == elements[target]


def test_targets_of_cyclic_and_product_groups_are_sums_and_pairs() -> None:
    batch = make(GroupWordProblem, group="Z60").batch("train", 0, 64)
    assert torch.equal(batch.targets, batch.inputs.cumsum(1) % 60)
    batch = make(GroupWordProblem, group="A4xZ5").batch("train", 0, 64)
    assert torch.equal(batch.targets % 5, (batch.inputs % 5).cumsum(1) % 5)
    elements = permuted("A4")
    for inputs, targets in zip((batch.inputs // 5).tolist(), (batch.targets // 5).tolist(), strict=True):
        product = reduce(lambda p, q: tuple(p[i] for i in q), (elements[g] for g in inputs))
        assert product == elements[targets[-1]]


@pytest.mark.parametrize(
    ("group", "order", "classes"), [("S3", 6, 3), ("S5", 120, 7), ("A5", 60, 5), ("A4xZ5", 60, 20), ("Z60", 60, 60)]
)
def test_the_tables_are_groups_of_known_order_and_class_number(group: Any, order: int, classes: int) -> None:
    table = multiplication_table(group)
    assert table.shape == (order, order)
    assert (table[0] == np.arange(order)).all()
    assert (table[:, 0] == np.arange(order)).all()
    assert (np.sort(table, 1) == np.arange(order)).all()
    assert (table[table] == table[:, table]).all(), "not associative"
    assert (table == table.T).sum() == classes * order  # pairs that commute
    assert group in get_args(Group)


@pytest.mark.parametrize(
    ("cls", "options", "padding"),
    [(Parity, {}, 2), (ModularArithmetic, {}, 9), (ModularArithmetic, {"brackets": True}, 9)],
)
def test_each_test_length_goes_on_from_the_one_before(
    cls: type[StateTrackingTask], options: dict[str, Any], padding: int
) -> None:
    sets = make(cls, **options, test_lengths=(40, 64, 256)).evaluation_sets()
    assert list(sets) == ["length=40", "length=64", "length=256"]
    for task, (least, most) in zip(sets.values(), [(3, 40), (41, 64), (65, 256)], strict=True):
        batch = task.batch("test", 0, 500)
        assert batch.inputs.shape == (500, most - 1)
        sizes = [len(tokens) + 1 for tokens, _ in asked(batch, padding)]
        assert least - 1 <= min(sizes) < least + 8  # with brackets no place says where the answer stands
        assert most - 8 < max(sizes) <= most


def test_the_group_word_problem_is_tested_at_each_length() -> None:
    sets = make(GroupWordProblem, group="A5", test_lengths=(8, 500)).evaluation_sets()
    assert {place: task.batch("test", 0, 2).inputs.shape[1] for place, task in sets.items()} == {
        "length=8": 8,
        "length=500": 500,
    }
    assert all(task.vocab_size == 60 and task.by_position for task in sets.values())


@pytest.mark.parametrize(
    ("cls", "options", "answers"),
    [(Parity, {}, 2), (ModularArithmetic, {}, 5), (GroupWordProblem, {"group": "A5"}, 60)],
)
def test_scaled_accuracy_is_zero_at_chance_and_one_when_all_is_right(
    cls: type[StateTrackingTask], options: dict[str, Any], answers: int
) -> None:
    task = make(cls, **options)
    batch = task.batch("validation", 0, 50)
    total = Evaluation()
    for answer in range(answers):
        logits = torch.full((*batch.inputs.shape, task.vocab_size), -torch.inf)
        logits[..., :answers] = 0
        logits[..., answer] = 1e-5
        total += task.measure(logits, batch)
    found = task.metrics(total)
    assert found["scaled_accuracy"] == pytest.approx(0, abs=1e-9)
    assert found["loss"] == pytest.approx(math.log(answers), abs=1e-3)
    assert task.chance() == pytest.approx(found, abs=1e-3)
    right = torch.nn.functional.one_hot(batch.targets.clamp(min=0), task.vocab_size).float()
    assert task.metrics(task.measure(right, batch))["scaled_accuracy"] == 1


@pytest.mark.parametrize(
    ("cls", "options", "place"),
    [
        (Parity, {"min_length": 41}, "min_length"),
        (Parity, {"test_lengths": (64, 40)}, "test_lengths"),
        (Parity, {"test_lengths": (2, 40)}, "test_lengths"),
        (ModularArithmetic, {"brackets": True, "test_lengths": (4, 40)}, "test_lengths"),
        (GroupWordProblem, {"test_lengths": (0,)}, "test_lengths"),
        (ModularArithmetic, {"brackets": True, "max_length": 4}, "max_length"),
    ],
)
def test_options_that_cannot_work_are_named(cls: type[StateTrackingTask], options: dict[str, int], place: str) -> None:
    with pytest.raises(SpecError) as error:
        make(cls, **options).evaluation_sets()
    assert error.value.place == f"task.options.{place}"


def test_the_shortest_sequences_work() -> None:
    assert asked(make(Parity, max_length=3).batch("train", 0, 50), 2)
    for options in ({"max_length": 3}, {"max_length": 4}, {"max_length": 5, "brackets": True}):
        assert expressions(make(ModularArithmetic, **options).batch("train", 0, 50))
    assert make(GroupWordProblem, sequence_length=1).batch("train", 0, 5).targets.shape == (5, 1)

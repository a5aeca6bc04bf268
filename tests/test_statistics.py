"""Intervals, paired tests and choices: against scipy, against worked examples, and against what they promise."""

from __future__ import annotations

import math
import statistics as plain

import numpy as np
import pytest
from scipy import special, stats

from chimeralab.statistics import best, compare_pairs, estimate, holm, sign_flip


def widened(n: int) -> float:
    """The level of the plain percentile bootstrap that has Hesterberg's tails."""
    return 1 - 2 * special.ndtr(math.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))


@pytest.mark.parametrize("n", [4, 5, 12, 30])
def test_the_interval_is_scipy_s_percentile_bootstrap_at_the_widened_level(n: int) -> None:
    values = np.random.default_rng(n).gamma(2.0, size=n)
    ours = estimate(values)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=widened(n), n_resamples=200_000, method="percentile", rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.mean, ours.n) == (pytest.approx(values.mean(), rel=1e-12), n)
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_interval_of_many_values_holds_their_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0)
    found = [estimate(draws.normal(size=12)) for _ in range(300)]
    assert sum(e.low <= 0 <= e.high for e in found) / 300 == pytest.approx(0.95, abs=0.04)  # three standard errors


def test_few_values_give_an_interval_within_them_and_one_gives_none() -> None:
    three = estimate([0.9, 0.7, 0.8])
    assert (three.low, three.high) == (pytest.approx(0.7, abs=1e-6), pytest.approx(0.9, abs=1e-6))
    one = estimate([0.5])
    assert (one.mean, one.low, one.high, one.n) == (0.5, None, None, 1)
    assert str(one) == "0.5 (n=1)"
    assert math.isnan(estimate([0.5, math.nan]).mean)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


@pytest.mark.parametrize("n", [3, 6, 10, 40])
def test_sign_flips_agree_with_scipy_s_permutation_test(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.4, 1.0, size=n)
    theirs = stats.permutation_test(
        (differences,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", n_resamples=100_000, rng=2
    ).pvalue
    assert sign_flip(differences) == pytest.approx(theirs, abs=1e-12 if n <= 10 else 0.01)


def test_the_least_p_value_is_that_of_two_patterns_in_all() -> None:
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 2**3
    assert sign_flip([0.0, 0.0]) == sign_flip([0.3]) == 1


def test_true_equality_is_rejected_as_rarely_as_the_level_says() -> None:
    draws = np.random.default_rng(1)
    rejected = sum(sign_flip(draws.normal(size=8)) < 0.05 for _ in range(1000))
    assert rejected / 1000 < 0.05 + 0.02


def test_holm_s_correction_is_that_of_r_s_p_adjust() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    kept = holm({"a": 0.01, "b": math.nan})
    assert kept["a"] == 0.01
    assert math.isnan(kept["b"])


def test_stacks_are_compared_over_the_seeds_and_tasks_that_both_have() -> None:
    keys = [(task, seed) for task in "xy" for seed in range(4)]
    level = {key: index / 10 for index, key in enumerate(keys)}
    scores = {
        "good": {key: value + 0.5 + 0.001 * index for index, (key, value) in enumerate(level.items())},
        "plain": level,
        "short": {key: level[key] for key in keys[:2]},
    }
    found = {(pair.a, pair.b): pair for pair in compare_pairs(scores)}
    assert found.keys() == {("good", "plain"), ("good", "short"), ("plain", "short")}
    whole = found["good", "plain"]
    assert (whole.n, whole.p, whole.adjusted) == (8, 2 / 2**8, 3 * 2 / 2**8)
    assert whole.difference.mean == pytest.approx(0.5 + 0.001 * 3.5)
    assert found["good", "short"].n == 2
    assert [(p.a, p.b) for p in compare_pairs(scores, against="plain")] == [("good", "plain"), ("short", "plain")]


def test_the_best_is_chosen_on_validation_and_told_on_test() -> None:
    validation = {
        "low": {0: 0.5, 1: 0.6},
        "high": {0: 0.8, 1: 0.9},
        "lucky": {0: 0.99},
        "broken": {0: 0.9, 1: math.nan},
    }
    test = {"low": {0: 1.0, 1: 1.0}, "high": {0: 0.7, 1: 0.8}}
    chosen = best(validation, "max", test)
    assert chosen is not None
    assert (chosen.key, chosen.among, chosen.validation.n) == ("high", 4, 2)
    assert chosen.test is not None
    assert chosen.test.mean == pytest.approx(plain.fmean([0.7, 0.8]))
    lowest = best(validation, "min")
    assert lowest is not None
    assert (lowest.key, lowest.test) == ("low", None)
    assert best({}, "max") is None
    assert best({"a": {0: math.nan}}, "max") is None

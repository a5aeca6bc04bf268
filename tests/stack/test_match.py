"""Stacks are matched by what they cost: parameters, FLOPs or state; budgets by tokens, FLOPs or seconds."""

from __future__ import annotations

import pytest

from chimeralab.errors import SpecError
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.match import match_depth, match_steps, match_width, quantity

TRANSFORMER = compose("attention[heads=4] x4", d_model=128)


@pytest.mark.parametrize("same", ["parameters", "flops"])
@pytest.mark.parametrize("pattern", ["mamba2[d_state=16, head_dim=16] x4, ffn=none", "delta_net[heads=4] x4", "gla x3"])
def test_no_other_width_is_nearer(pattern: str, same: str) -> None:
    target = quantity(TRANSFORMER, same, vocab_size=512)
    found = match_width(compose(pattern, d_model=64), same, target, vocab_size=512)
    assert abs(found.off) < 0.1
    distance = abs(found.value - target)
    width = found.stack.d_model
    for other in range(max(8, width - 64), width + 72, 8):
        try:
            stack = compose(pattern, d_model=other)
        except SpecError:
            continue
        assert abs(quantity(stack, same, vocab_size=512) - target) >= distance


def test_the_matched_stack_has_the_parameters_that_are_told() -> None:
    found = match_width(compose("mamba x3, ffn=none", d_model=64), "parameters", 300_000, vocab_size=64)
    assert build(found.stack, vocab_size=64).parameter_count() == found.value


def test_widths_that_no_layer_can_have_are_passed_over() -> None:
    found = match_width(compose("attention[heads=6] x2", d_model=96), "parameters", 400_000)
    assert found.stack.d_model % 24 == 0  # six heads, each of an even width for its rotation, and a multiple of eight


def test_state_is_matched_at_a_length() -> None:
    cache = quantity(TRANSFORMER, "state", sequence_length=64)
    assert cache == 4 * 2 * 128 * 64 * 2  # layers, keys and values, width, tokens, bytes
    found = match_width(compose("gla x2", d_model=64), "state", cache, sequence_length=64)
    assert abs(found.off) < 0.15
    with pytest.raises(SpecError, match="not 1"):
        match_width(compose("gla x2", d_model=64), "state", 1)


def test_depth_is_matched_by_repeating_the_layers() -> None:
    one = compose("mamba2[d_state=16], attention[heads=4]", d_model=128)
    target = quantity(compose("attention[heads=4] x11", d_model=128), "parameters")
    found = match_depth(one, "parameters", target)
    assert [layer.mixer for layer in found.stack.layers[:3]] == ["mamba2", "attention", "mamba2"]
    costs = [quantity(one.model_copy(update={"layers": one.layers * n}), "parameters") for n in range(1, 12)]
    assert found.value == min(costs, key=lambda value: abs(value - target))


def test_steps_of_an_equal_budget() -> None:
    assert match_steps("tokens", 1e6, tokens_per_step=4096) == 244
    slow, fast = quantity(TRANSFORMER, "flops"), quantity(compose("attention[heads=4] x2", d_model=128), "flops")
    steps = [match_steps("flops", 1e12, tokens_per_step=1024, flops_per_token=flops) for flops in (slow, fast)]
    assert steps == [round(1e12 / (1024 * slow)), round(1e12 / (1024 * fast))]
    assert match_steps("seconds", 60, tokens_per_step=1000, tokens_per_second=5000) == 300
    assert match_steps("tokens", 5, tokens_per_step=4096) == 1


@pytest.mark.parametrize("same", ["flops", "seconds"])
def test_a_budget_that_cannot_be_counted_is_refused(same: str) -> None:
    with pytest.raises(SpecError, match="a step of 0"):
        match_steps(same, 1e6, tokens_per_step=4096)

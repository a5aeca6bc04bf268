"""Fair comparisons: the width or depth at which a stack costs as much as another, and the steps of an equal budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from chimeralab.errors import SpecError
from chimeralab.stack.cost import cost
from chimeralab.stack.spec import MAX_LAYERS, StackSpec

Quantity = Literal["parameters", "flops", "state"]
Budget = Literal["tokens", "flops", "seconds"]

MAX_WIDTH = 65_536
NEAR = 16  # widths tried around the best for one that the layers can have: heads may not divide most of them


@dataclass(frozen=True)
class Matched:
    """A stack that costs about as much as was asked for."""

    stack: StackSpec
    value: float
    target: float

    @property
    def off(self) -> float:
        """How far it is from the target, as a share of it."""
        return self.value / self.target - 1


def quantity(stack: StackSpec, same: Quantity, *, vocab_size: int = 256, sequence_length: int = 256) -> float:
    """Parameters (embedding and head included), training FLOPs per token, or bytes of state per sequence.

    Raises:
        SpecError: a layer cannot be built.
    """
    report = cost(stack, vocab_size=vocab_size, sequence_length=sequence_length, contexts=[sequence_length])
    if same == "parameters":
        return float(report.total_params)
    return report.train_flops if same == "flops" else float(report.state_bytes[0])


def match_width(
    stack: StackSpec,
    same: Quantity,
    target: float,
    *,
    vocab_size: int = 256,
    sequence_length: int = 256,
    multiple: int = 8,
) -> Matched:
    """The stack at the width, a multiple of `multiple`, at which its cost is nearest to `target`.

    Widths that a layer cannot have are passed over.

    Raises:
        SpecError: its cost does not grow with its width, or the target is out of its reach.
    """

    def at(n: int) -> StackSpec:
        return StackSpec.model_validate({**stack.model_dump(), "d_model": n * multiple})

    def value(n: int) -> float | None:
        try:
            return quantity(at(n), same, vocab_size=vocab_size, sequence_length=sequence_length)
        except SpecError:
            return None

    if multiple < 8 or multiple % 8:
        raise SpecError(f"widths are multiples of 8, not of {multiple}", place="match", remedy="Take 8, 16, 32 …")
    n, found = _nearest(value, target, MAX_WIDTH // multiple, f"widths of {stack.text}")
    return Matched(at(n), found, target)


def match_depth(
    stack: StackSpec, same: Quantity, target: float, *, vocab_size: int = 256, sequence_length: int = 256
) -> Matched:
    """The stack with all of its layers repeated so often that its cost is nearest to `target`.

    Raises:
        SpecError: the target is out of its reach.
    """

    def at(n: int) -> StackSpec:
        return stack.model_copy(update={"layers": stack.layers * n})

    def value(n: int) -> float:
        return quantity(at(n), same, vocab_size=vocab_size, sequence_length=sequence_length)

    n, found = _nearest(value, target, MAX_LAYERS // len(stack.layers), f"repeats of {stack.text}")
    return Matched(at(n), found, target)


def match_steps(
    same: Budget,
    target: float,
    *,
    tokens_per_step: int,
    flops_per_token: float = 0.0,
    tokens_per_second: float = 0.0,
) -> int:
    """Optimizer steps, one at least, whose tokens, training FLOPs or seconds come nearest to `target`.

    Args:
        tokens_per_step: batch size x accumulate x sequence length.
        flops_per_token: of training, as `quantity(stack, "flops")` has it; for FLOPs.
        tokens_per_second: as measured where it will train; for seconds.

    Raises:
        SpecError: what the budget is counted in is not known.
    """
    per_step = {
        "tokens": float(tokens_per_step),
        "flops": flops_per_token * tokens_per_step,
        "seconds": tokens_per_step / tokens_per_second if tokens_per_second > 0 else 0.0,
    }[same]
    if per_step <= 0 or target <= 0:
        raise SpecError(
            f"a step of {per_step:g} {same} cannot make {target:g}",
            place="match",
            remedy="Give tokens per step, and FLOPs per token or tokens per second where they are asked for",
        )
    return max(1, round(target / per_step))


def _nearest(value: Callable[[int], float | None], target: float, most: int, what: str) -> tuple[int, float]:
    """The n in 1 … most whose value is nearest to the target, and that value. Values rise; None is no value."""
    known: dict[int, float | None] = {}

    def at(n: int) -> float | None:
        if n not in known:
            known[n] = value(n)
        return known[n]

    def up(n: int) -> int | None:
        """The first n from here on that has a value."""
        return next((m for m in range(n, min(n + NEAR, most) + 1) if at(m) is not None), None)

    low, high = up(1), up(1)
    while high is not None and (at(high) or 0.0) < target and high < most:
        low, high = high, up(min(2 * high, most))
    if low is None or high is None:
        raise SpecError(f"no such {what} can be built near {target:g}", place="match", remedy="Take another multiple")
    while high - low > 1:
        middle = up((low + high) // 2)
        if middle is None or middle >= high:
            break
        low, high = (middle, high) if (at(middle) or 0.0) < target else (low, middle)
    for n in range(max(1, low - NEAR), min(high + NEAR, most) + 1):
        at(n)
    near = {n: found for n, found in known.items() if found is not None}
    best = min(near, key=lambda n: (abs(near[n] - target), n))
    if abs(near[best] - target) > 0.5 * target:
        reach = f"{min(near.values()):,.0f} to {max(near.values()):,.0f}"
        raise SpecError(f"{what} reach {reach}, not {target:,.0f}", place="match", remedy="Change what they must match")
    return best, near[best]

"""Asynchronous successive halving: which member, just evaluated, is not worth going on with."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from chimeralab.sweeps.spec import Halving

Evaluations = Sequence[tuple[int, float]]
"""(step, value), in the order of steps."""


def rungs(rule: Halving, last: int) -> list[float]:
    """The rungs up to a step."""
    found, rung = [], float(rule.min_step)
    while rung <= last:
        found.append(rung)
        rung *= rule.eta
    return found


def at_rung(evaluations: Evaluations, rung: float) -> tuple[int, float] | None:
    """A member's evaluation at a rung: the first from there on."""
    return next(((step, value) for step, value in evaluations if step >= rung), None)


def verdict(
    rule: Halving,
    direction: Literal["min", "max"],
    member: int,
    evaluations: Mapping[int, Evaluations],
    new: Collection[int],
) -> str:
    """Why `member` should stop, or "".

    Asked when it was evaluated, at the steps `new`. Each rung decides once, by the evaluation that first reached it:
    that one is compared with what all members (pruned ones too) have had at the rung so far. The member goes on while
    they are fewer than eta, or when it is among the best 1/eta. NaN is worse than anything.
    """
    sign = 1 if direction == "max" else -1

    def score(value: float) -> float:
        return -math.inf if math.isnan(value) else sign * value

    for rung in rungs(rule, max(new, default=0)):
        mine = at_rung(evaluations[member], rung)
        if mine is None or mine[0] not in new:
            continue
        known = [score(found[1]) for other in evaluations.values() if (found := at_rung(other, rung))]
        better = sum(other > score(mine[1]) for other in known)
        kept = max(1, int(len(known) / rule.eta))
        if len(known) >= rule.eta and better >= kept:
            told = f"{better} of {len(known)} members were better there, and the best {kept} go on"
            return f"pruned at step {mine[0]}: {told}"
    return ""

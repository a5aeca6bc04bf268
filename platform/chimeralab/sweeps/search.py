"""Which points to try: drawn at random, or suggested by what was measured so far."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chimeralab.errors import SpecError
from chimeralab.sweeps.axes import Axis

if TYPE_CHECKING:
    from chimeralab.sweeps.spec import Point, SweepSpec

TRIES = 100  # draws without a new point after which a space counts as used up


@dataclass(frozen=True)
class Trial:
    """A point that was tried; `value` is its metric, None while it runs, or when it failed."""

    point: Point
    value: float | None
    ended: bool


def draw(axes: Sequence[Axis], count: int, seed: int) -> list[Point]:
    """`count` different points, drawn evenly along each axis; the same ones for the same seed.

    Raises:
        SpecError: the space has fewer.
    """
    draws = random.Random(seed)
    found: dict[str, Point] = {}
    missed = 0
    while len(found) < count:
        point = {
            axis.name: axis.interval.at(draws.random()) if axis.interval else draws.choice(axis.choices)[0]
            for axis in axes
        }
        key = json.dumps(point, default=str)
        missed = missed + 1 if key in found else 0
        found[key] = point
        if missed == TRIES:
            raise SpecError(
                f"{count} points are asked for, and there are {len(found)} or few more",
                place="search.n",
                remedy="Take search: grid, which tries each once",
            )
    return list(found.values())


def suggest(spec: SweepSpec, trials: Sequence[Trial], count: int) -> list[Point]:
    """`count` points to try next, by optuna's TPE. A pure function of the trials, so a restart needs no memory.

    Trials that still run count as mediocre, so that points asked for at once differ.

    Raises:
        SpecError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SpecError(
            "optuna is not installed",
            place="search",
            remedy="pip install 'chimeralab[sweeps]', or search: {kind: random, n: 20}",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = spec.read_axes()
    spaces: dict[str, Any] = {}
    for axis in axes:
        if axis.interval is not None:
            ends = (axis.interval.low, axis.interval.high)
            spaces[axis.name] = optuna.distributions.FloatDistribution(*ends, log=axis.interval.log)
        else:  # optuna's categories are plain values: the number of the choice stands for it
            spaces[axis.name] = optuna.distributions.CategoricalDistribution(range(len(axis.choices)))
    sampler = optuna.samplers.TPESampler(seed=(spec.search.seed * 1_000_003 + len(trials)) % 2**32, constant_liar=True)
    study = optuna.create_study(direction="minimize" if spec.direction == "min" else "maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for trial in trials:
        state = states.COMPLETE if trial.value is not None else states.FAIL if trial.ended else states.RUNNING
        parameters = {axis.name: _number(axis, trial.point[axis.name]) for axis in axes}
        made = optuna.trial.create_trial(state=state, value=trial.value, params=parameters, distributions=spaces)
        study.add_trial(made)
    found = []
    for _ in range(count):
        asked = study.ask(spaces).params
        found.append(
            {
                axis.name: axis.interval.rounded(asked[axis.name])
                if axis.interval
                else axis.choices[asked[axis.name]][0]
                for axis in axes
            }
        )
    return found


def _number(axis: Axis, label: Any) -> Any:
    if axis.interval is not None:
        return label
    return next(index for index, (known, _) in enumerate(axis.choices) if known == label)

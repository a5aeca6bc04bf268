"""Every task that a plugin registers keeps its contract."""

from __future__ import annotations

from typing import Any

import pytest

from chimeralab.plugins import registry
from chimeralab.testing import TaskConformance

# Small enough for seconds; a task that is not named here runs with its defaults.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "text": [
        {"sequence_length": 32, "max_bytes": 200_000},
        {"sequence_length": 32, "max_bytes": 200_000, "tokenizer": "bpe", "vocab_size": 300},
        {"sequence_length": 32, "max_bytes": 200_000, "mask": 0.2},
    ],
    "images": [{}, {"order": "z"}, {"patch": 2, "order": "z"}],
    "modular_arithmetic": [{}, {"brackets": True}],
    "mqar": [{"vocab_size": 64}, {"vocab_size": 64, "random_non_queries": False}],
}


def _cases() -> list[Any]:
    cases = []
    for name, task in registry().tasks.items():
        for number, options in enumerate(OPTIONS.get(name, [{}])):
            suite = TaskConformance.of(task=task, options=options)
            cases += [pytest.param(suite, check, id=f"{name}{number or ''}-{check}") for check in suite.checks()]
    return cases


@pytest.mark.parametrize(("suite", "check"), _cases())
def test_task_keeps_its_contract(suite: TaskConformance, check: str) -> None:
    getattr(suite, check)()

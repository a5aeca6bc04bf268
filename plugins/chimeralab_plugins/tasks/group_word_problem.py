"""The product of the elements of a finite group seen so far."""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts.task import Split
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.generated import TEST_LENGTHS, GeneratedConfig
from chimeralab_plugins.tasks.state_tracking import StateTrackingTask

Group = Literal["S3", "S5", "A5", "A4xZ5", "Z60"]


class GroupWordProblemConfig(GeneratedConfig):
    group: Group = Field("S3", description="S: permutations of so many things, A: the even ones, Z: addition modulo")
    sequence_length: int = Field(32, ge=1, le=65_536, description="Elements in a sequence")
    test_lengths: tuple[int, ...] = Field((500,), description=TEST_LENGTHS)


class GroupWordProblem(StateTrackingTask):
    """Uniform elements g₁ g₂ … of a group; the target at place t is the product g₁ · g₂ · … · g_t.

    As in "The illusion of state in state-space models" (arXiv 2404.08819). S5 and A5 are not solvable, so their word
    problem is complete for NC¹; A4×Z5 and Z60 have as many elements as A5, but are solvable (Z60 even commutative).
    A permutation p · q does q first. Elements are numbered by lexicographic order, those of A4×Z5 as 5a + z.
    """

    name = "group_word_problem"
    title = "Group word problem"
    summary = "Multiply elements of a finite group, with the product at every place"
    source = "https://arxiv.org/abs/2404.08819"
    Config = GroupWordProblemConfig
    config: GroupWordProblemConfig
    by_position = True
    axes: ClassVar = {"length": "sequence_length"}

    @property
    def answers(self) -> int:
        return len(multiplication_table(self.config.group))

    @property
    def vocab_size(self) -> int:
        return self.answers

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "elements of the group": self.answers}

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        T, table = self.sequence_length, multiplication_table(self.config.group)
        (random,) = draws.of_rows(stream, numbers, [T])
        inputs = draws.below(random, len(table))
        targets = inputs.copy()
        for t in range(1, T):
            targets[:, t] = table[targets[:, t - 1], inputs[:, t]]
        return inputs, targets


@cache
def multiplication_table(group: Group) -> NDArray[np.int64]:
    """Element a · b in row a, column b; element 0 is neutral."""
    if group == "A4xZ5":
        a, z = _permutation_table(_even(4)), _cyclic(5)
        return (5 * a[:, None, :, None] + z[None, :, None, :]).reshape(60, 60)
    if group == "Z60":
        return _cyclic(60)
    size = int(group[1:])
    return _permutation_table(_even(size) if group[0] == "A" else list(permutations(range(size))))


def _permutation_table(elements: list[tuple[int, ...]]) -> NDArray[np.int64]:
    """The table of a group of permutations."""
    number = {element: n for n, element in enumerate(elements)}
    return np.array([[number[tuple(p[i] for i in q)] for q in elements] for p in elements])


def _even(size: int) -> list[tuple[int, ...]]:
    def inversions(p: tuple[int, ...]) -> int:
        return sum(p[i] > p[j] for j in range(size) for i in range(j))

    return [p for p in permutations(range(size)) if inversions(p) % 2 == 0]


def _cyclic(size: int) -> NDArray[np.int64]:
    return (np.arange(size)[:, None] + np.arange(size)) % size

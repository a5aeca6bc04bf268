"""The value of an arithmetic expression modulo a small number, with and without brackets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.state_tracking import FormalLanguageConfig, FormalLanguageTask

SIGNS = "+-*= ()"  # their ids follow those of the numbers; a blank pads


class ModularArithmeticConfig(FormalLanguageConfig):
    modulus: int = Field(5, ge=2, le=1000, description="Numbers are 0 to this, less one")
    brackets: bool = Field(False, description="Nested brackets around every operation")
    multiplication: bool | None = Field(None, description="Multiply too; empty: where there are no brackets")


class ModularArithmetic(FormalLanguageTask):
    """The value of an expression such as 2-3*4+1 or ((1+4)-(-2)) modulo 5, asked for at the equals sign after it.

    As in xLSTM's experiments: without brackets a sequence of n tokens (odd) is an expression of n - 2 tokens, uniform
    numbers and operators in turn, the equals sign and the answer, which the model does not see. Multiplication comes
    before addition and subtraction.

    With brackets, as in the neural Chomsky hierarchy (arXiv 2207.02098) and in DeltaNet with negative eigenvalues
    (arXiv 2411.12537), n tokens, 5 at least, hold an expression of exactly n - 3. One of 1 to 4 tokens is d, -d, (d)
    or (-d); a longer one is (left operator right) with the length of the left side drawn uniformly. These sources
    leave multiplication out where there are brackets.

    Ids: the numbers, then + - * = and padding, and with brackets ( and ).
    """

    name = "modular_arithmetic"
    title = "Modular arithmetic"
    summary = "Say what an expression gives modulo 5, with or without brackets"
    source = "https://arxiv.org/abs/2207.02098"
    Config = ModularArithmeticConfig
    config: ModularArithmeticConfig

    def check(self) -> None:
        super().check()
        if self.config.brackets and self.config.max_length < 5:
            raise SpecError(
                f"an expression with brackets does not fit in {self.config.max_length} tokens",
                place="task.options.max_length",
                remedy="Take at least 5",
            )

    @property
    def answers(self) -> int:
        return self.config.modulus

    @property
    def vocab_size(self) -> int:
        return self.config.modulus + (7 if self.config.brackets else 5)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c = self.config
        shortest, longest = c.min_length, c.max_length
        (for_lengths,) = draws.of_rows(draws.key("lengths", stream), numbers, [1])
        inputs = np.full((len(numbers), longest - 1), self._id(" "))
        if c.brackets:
            lengths = np.maximum(shortest + draws.below(for_lengths, longest - shortest + 1), 5) - 3
            values = self._nested(stream, numbers, lengths, inputs)
        else:
            least, most = (shortest + 1) // 2, (longest + 1) // 2
            lengths = 2 * (least + draws.below(for_lengths, most - least + 1)) - 3
            values = self._flat(stream, numbers, lengths, inputs)
        targets = np.full_like(inputs, IGNORE)
        np.put_along_axis(inputs, lengths, self._id("="), 1)
        np.put_along_axis(targets, lengths, values, 1)
        return inputs, targets

    def _id(self, sign: str) -> int:
        return self.config.modulus + SIGNS.index(sign)

    @property
    def _operators(self) -> int:
        """The first so many of + - *."""
        multiplies = self.config.multiplication
        return 3 if (not self.config.brackets if multiplies is None else multiplies) else 2

    def _flat(self, stream: int, rows: NDArray, lengths: NDArray, into: NDArray) -> NDArray[np.int64]:
        """Writes expressions of `lengths` (B, 1), odd, `into` (B, T); their values (B, 1)."""
        N, m = (into.shape[1] + 1) // 2, self.config.modulus
        for_numbers, for_operators = draws.of_rows(stream, rows, [N, N])
        terms = draws.below(for_numbers, m)  # B N
        operators = draws.below(for_operators, self._operators)  # the one after each number
        count = (lengths + 1) // 2
        tokens = np.stack([terms, m + operators], 2).reshape(len(rows), -1)[:, : into.shape[1]]
        np.copyto(into, tokens, where=np.arange(into.shape[1]) < lengths)

        total = np.zeros(len(rows), np.int64)
        product, past = terms[:, 0].copy(), np.arange(N) >= count
        for n in range(1, N):
            operator = operators[:, n - 1]
            times = operator == 2
            number = np.where(operator == 1, -terms[:, n], terms[:, n])
            following = np.where(times, product * terms[:, n] % m, number)
            gone = past[:, n]
            total += np.where(times | gone, 0, product)
            product = np.where(gone, product, following)
        return ((total + product) % m)[:, None]

    def _nested(self, stream: int, rows: NDArray, lengths: NDArray, into: NDArray) -> NDArray[np.int64]:
        """The same with brackets: from the outside in, all expressions of one depth at once, and back for values."""
        m, T = self.config.modulus, into.shape[1]
        for_shape, for_operators = draws.of_rows(stream, rows, [T, T])  # an expression owns the place where it starts
        value = np.zeros((len(rows), T), np.int64)  # of the expression that starts there
        row, start, length = np.arange(len(rows)), np.zeros(len(rows), np.int64), lengths[:, 0]
        depths = []
        while len(row):
            short = length < 5
            self._leaves(row[short], start[short], length[short], for_shape, into, value)
            row, start, length = row[~short], start[~short], length[~short]
            left = 1 + draws.below(for_shape[row, start], np.maximum(length - 4, 1))
            operator = draws.below(for_operators[row, start], self._operators)
            middle = start + 1 + left
            into[row, start], into[row, start + length - 1] = self._id("("), self._id(")")
            into[row, middle] = m + operator
            depths.append((row, start, middle, operator))
            starts, lengths = (start + 1, middle + 1), (left, length - left - 3)
            row, start, length = np.tile(row, 2), np.concatenate(starts), np.concatenate(lengths)
        for row, start, middle, operator in reversed(depths):
            a, b = value[row, start + 1], value[row, middle + 1]
            value[row, start] = np.choose(operator, [a + b, a - b, a * b]) % m
        return value[:, :1]

    def _leaves(
        self, row: NDArray, start: NDArray, length: NDArray, random: NDArray, into: NDArray, value: NDArray
    ) -> None:
        """d, -d, (d) and (-d), each as long as it says; its value stands where it starts."""
        number = draws.below(random[row, start], self.config.modulus)
        inside = length >= 3
        negative = length % 2 == 0
        into[row[inside], start[inside]] = self._id("(")
        into[row[inside], (start + length - 1)[inside]] = self._id(")")
        into[row[negative], (start + inside)[negative]] = self._id("-")
        into[row, start + inside + negative] = number
        value[row, start] = np.where(negative, -number, number) % self.config.modulus

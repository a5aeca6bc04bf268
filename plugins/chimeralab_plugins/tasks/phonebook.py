"""Look a number up in a phone book."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.exact_match import ExactMatchTask
from chimeralab_plugins.tasks.generated import GeneratedConfig
from chimeralab_plugins.tasks.spelling import joined, spelled

_FIRST = (
    "James Mary Robert Linda John Susan David Karen Paul Nancy Mark Lisa Steven Betty Andrew Sandra Kevin Ashley "
    "Brian Emily George Donna Edward Carol Ronald Amanda Timothy Melissa Jason Deborah Jeffrey Laura Ryan Rebecca "
    "Jacob Sharon Gary Cynthia Eric Kathleen"
)
_LAST = (
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Wilson Anderson Thomas Taylor Moore Jackson Martin Lee "
    "Perez Thompson White Harris Clark Lewis Walker Hall Allen Young King Wright Scott Hill Green Adams Baker Nelson "
    "Carter Turner Parker Evans Collins Cook"
)
FIRST, LAST = _FIRST.split(), _LAST.split()
NAMES = [f"{first} {last}" for last in LAST for first in FIRST]
ALPHABET = "*\n :0123456789" + "".join(sorted(set("".join(FIRST + LAST))))  # the first pads
DIGITS = 10


class PhonebookConfig(GeneratedConfig):
    entries: int = Field(20, ge=1, le=len(NAMES), description="Names in the book")
    shots: int = Field(2, ge=0, le=100, description="Entries that are shown again before the question")
    test_entries: tuple[int, ...] = Field((5, 10, 20, 40), description="Sizes of the book to test on besides")


class Phonebook(ExactMatchTask):
    """A book of `Mary Smith: 6183042971` lines, two of them again, and the name of a third, whose number is asked for.

    As in "Repeat after me" (arXiv 2402.01032; `pretrained_exps/data_utils.py`), which asks pretrained models: lines,
    an empty line, the entries that show what to do, an empty line, `Name:`. Spelled here with an id for each letter, so
    that a stack can learn it from nothing. Names are different combinations of 40 first and 40 last ones; numbers have
    ten digits, the first 6 to 9. The ten digits are counted; `exact_match` is the whole number. Shorter sequences are
    padded at their end.
    """

    name = "phonebook"
    title = "Phone book"
    summary = "Look a number up in a book of names, spelled out"
    source = "https://arxiv.org/abs/2402.01032"
    Config = PhonebookConfig
    config: PhonebookConfig
    writes_answer = True
    axes: ClassVar = {"entries": "entries"}
    vocab_size = len(ALPHABET)

    def check(self) -> None:
        c = self.config
        if c.entries <= c.shots:
            raise SpecError(
                f"of {c.entries} entries {c.shots} are shown again, and none is left to ask for",
                place="task.options.entries",
                remedy=f"Take at least {c.shots + 1}, or fewer shots",
            )

    @property
    def sequence_length(self) -> int:
        """Of the longest names."""
        line = max(map(len, NAMES)) + len(": \n") + DIGITS
        return (self.config.entries + self.config.shots + 1) * line

    def chance(self) -> dict[str, float]:
        """Uniform guesses at each digit."""
        rest = DIGITS - 1
        return {
            "accuracy": (1 / 4 + rest / 10) / DIGITS,
            "loss": (math.log(4) + rest * math.log(10)) / DIGITS,
            "exact_match": 1 / (4 * 10**rest),
        }

    def decode(self, tokens: torch.Tensor) -> str:
        return "".join(ALPHABET[int(token)] for token in tokens)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c, B = self.config, len(numbers)
        E, S = c.entries, c.shots
        for_names, for_digits, for_asked = draws.of_rows(stream, numbers, [E, E * DIGITS, S + 1])
        names = _LETTERS[draws.distinct(for_names, len(NAMES))]  # B E letters
        least, many = np.array([6] + [0] * (DIGITS - 1)), np.array([4] + [10] * (DIGITS - 1))
        digits = ALPHABET.index("0") + least + draws.below(for_digits.reshape(B, E, DIGITS), many)
        asked = draws.distinct(for_asked, E)
        newline, colon, space = (ALPHABET.index(sign) for sign in "\n: ")

        def entry(which: NDArray, answered: bool = False) -> list[Any]:
            """The entries, one of each book, with or without the end of the line."""
            rows = np.arange(B)
            return [(names[rows, which], False), ([colon, space], False), (digits[rows, which], answered)]

        pieces: list[Any] = []
        for n in range(E):
            pieces += [*entry(np.full(B, n)), (newline, False)]
        pieces += [(newline, False)]
        for n in range(S):
            pieces += [*entry(asked[:, n]), (newline, False)]
        pieces += [(newline, False)] if S else []
        pieces += entry(asked[:, S], answered=True)
        return joined(pieces, B, self.sequence_length, padding=0)


_LETTERS = spelled(NAMES, ALPHABET)

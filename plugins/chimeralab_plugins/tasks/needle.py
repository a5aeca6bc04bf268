"""Find the one sentence that is asked about in a long text."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from chimeralab.contracts import IGNORE
from chimeralab.contracts.task import Split
from chimeralab.errors import SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.exact_match import ExactMatchTask
from chimeralab_plugins.tasks.generated import TEST_LENGTHS, GeneratedConfig
from chimeralab_plugins.tasks.spelling import NOTHING, packed, spelled

_WORDS = (
    "the of and to a in is it that was for on are with as his they be at one have this from or had by hot but some "
    "what there we can out other were all your when up use word how said each she which do their time if will way "
    "about many then them would write like so these her long make thing see him two has look more day could go come "
    "did my sound no most number who over know water than call first people may down side been now find any new work "
    "part take get place made live where after back little only round man year came show every good me give our under "
    "name very through just form much great think say help low line before turn cause same mean differ move right boy "
    "old too does tell sentence set three want air well also play small end put home read hand port large spell add "
    "even land here must big high such follow act why ask men change went light kind off need house picture try us "
    "again animal point mother world near build"
)
_CITIES = (
    "Athens Berlin Bogota Boston Cairo Dakar Delhi Dublin Geneva Hanoi Havana Kyoto Lagos Lima Lisbon London Madrid "
    "Manila Moscow Munich Nairobi Naples Oslo Paris Prague Quito Rome Seoul Sofia Sydney Tokyo Vienna"
)
WORDS, CITIES = _WORDS.split(), _CITIES.split()
DIGITS = 7
NEEDLE, OF, ASK, ANSWER = "The number of ", " is ", " What is the number of ", "? It is "
ALPHABET = "*. ?0123456789" + "".join(sorted(set("".join([*WORDS, *CITIES, NEEDLE, OF, ASK, ANSWER])) - set(" ?")))
_SENTENCE = max(len(city) for city in CITIES) + len(NEEDLE + OF + ". ") + DIGITS
_QUESTION = max(len(city) for city in CITIES) + len(ASK + ANSWER) + DIGITS


class NeedleConfig(GeneratedConfig):
    sequence_length: int = Field(256, ge=1, le=1_048_576, description="Letters in a sequence")
    depth: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Where the needle is: 0 the beginning, 1 just before the question; empty: anywhere",
    )
    distractors: int = Field(2, ge=0, le=len(CITIES) - 1, description="Numbers of other cities in the text")
    test_depths: tuple[float, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), description="Depths to test at, at each length")
    test_lengths: tuple[int, ...] = Field((256, 512, 1024), description=TEST_LENGTHS)


class Needle(ExactMatchTask):
    """A needle in a haystack: `The number of Oslo is 5820331.` somewhere in a text, and at its end what it was.

    After Kamradt's test of long contexts and RULER's (arXiv 2404.06654), spelled with an id for each letter, so that a
    stack can learn it from nothing. The text is common English words, the common ones oftener (by Zipf's law), in
    sentences of about ten. The needle begins at the first word at or past `depth` times the room there is, and other
    cities' numbers stand at words drawn at random (`distractors`; one that falls near the end may be cut). The seven
    digits after the question are counted; `exact_match` is the whole number. The evaluation sets are a grid of depth by
    length.
    """

    name = "needle"
    title = "Needle in a haystack"
    summary = "Find the sentence that is asked about in a long text, by depth and length"
    source = "https://arxiv.org/abs/2404.06654"
    Config = NeedleConfig
    config: NeedleConfig
    writes_answer = True
    axes: ClassVar = {"depth": "depth", "length": "sequence_length"}
    vocab_size = len(ALPHABET)

    def check(self) -> None:
        c = self.config
        least = _SENTENCE * (1 + c.distractors) + _QUESTION
        if c.sequence_length < least:
            raise SpecError(
                f"a needle, {c.distractors} others and the question do not fit in {c.sequence_length} letters",
                place="task.options.sequence_length",
                remedy=f"Take at least {least}, or fewer distractors",
            )

    def chance(self) -> dict[str, float]:
        """Uniform guesses at each digit."""
        return {"accuracy": 0.1, "loss": math.log(10), "exact_match": 10.0**-DIGITS}

    def decode(self, tokens: torch.Tensor) -> str:
        return "".join(ALPHABET[int(token)] for token in tokens)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c, B, T = self.config, len(numbers), self.sequence_length
        N, D = math.ceil(T / 2), c.distractors  # a word is a letter and a blank at least
        widths = [N, 1, D, 1 + D, (1 + D) * DIGITS]
        for_words, for_depth, for_places, for_cities, for_digits = draws.of_rows(stream, numbers, widths)
        # A draw's high bits choose the word, and its remainder, which they leave free, whether a full stop follows.
        words = _ZIPF[(for_words >> np.uint64(48)).astype(np.int64)] + len(WORDS) * (draws.below(for_words, 10) == 0)
        cities = draws.distinct(for_cities, len(CITIES))
        digits = ALPHABET.index("0") + draws.below(for_digits, 10).reshape(B, 1 + D, DIGITS)
        stop = np.broadcast_to(spelled([". "], ALPHABET), (B, 1 + D, 2))
        sentences = packed(np.concatenate([_NEEDLES[cities], digits, stop], 2))  # B 1+D letters; the first is asked for
        room = (T + 1 - DIGITS - (_QUESTIONS[cities[:, 0]] != NOTHING).sum(1))[:, None]  # letters of the text

        # Each sentence takes the place of a word: the others first, which push the rest of the text back.
        used = min(N, int((np.cumsum(_SIZES[words], 1) <= T).sum(1).max()) + 2 + D)  # to the end, with D words taken
        words, rows, column = words[:, :used], np.arange(B)[:, None], np.arange(used)
        sizes, lengths = _SIZES[words], (sentences != NOTHING).sum(2)
        free, places = np.ones((B, used), bool), np.empty((B, 1 + D), np.int64)
        inside = np.maximum((np.cumsum(sizes, 1) <= room - _SENTENCE).sum(1), 1)
        for d in range(1, 1 + D):
            wanted = draws.below(for_places[:, d - 1], inside)[:, None]
            places[:, d] = (free & (column >= wanted)).argmax(1)
            free[rows[:, 0], places[:, d]] = False
        sizes[rows, places[:, 1:]] = lengths[:, 1:]
        starts = np.cumsum(sizes, 1) - sizes
        latest = room - lengths[:, :1]
        depth = draws.unit(for_depth) if c.depth is None else c.depth
        after = (free & (starts >= np.floor(depth * latest))).argmax(1)
        before = used - 1 - (free & (starts <= latest))[:, ::-1].argmax(1)
        places[:, 0] = np.minimum(after, before)
        sizes[rows, places[:, :1]] = lengths[:, :1]

        tables = (_LETTERS, _QUESTIONS, sentences.reshape(B * (1 + D), -1), digits[:, 0])
        letters = np.concatenate([table.ravel() for table in tables])
        of_words, of_questions, of_sentences, of_answers = (
            end - table.size + np.arange(len(table)) * table.shape[1]  # where each of a table begins in all letters
            for end, table in zip(np.cumsum([table.size for table in tables]), tables, strict=True)
        )
        first = of_words[words]
        first[rows, places] = of_sentences.reshape(B, 1 + D)
        first = np.concatenate([first, of_questions[cities[:, :1]], of_answers[:, None]], 1)
        sizes = np.clip(room - (np.cumsum(sizes, 1) - sizes), 0, sizes)  # the text is cut where the question begins
        sizes = np.concatenate([sizes, T + 1 - DIGITS - room, np.full((B, 1), DIGITS)], 1)
        whole = _joined(letters, first, sizes)
        targets = np.full((B, T), IGNORE)
        targets[:, -DIGITS:] = digits[:, 0]
        return whole[:, :-1].copy(), targets


def _joined(letters: NDArray, first: NDArray, sizes: NDArray) -> NDArray:
    """Each row's pieces (B, N), one after another: so many `letters` from the `first` on; B T."""
    many = sizes.ravel()
    back = first.ravel() - (np.cumsum(many) - many)  # from a letter's place in the batch to that in `letters`
    return letters[np.repeat(back, many) + np.arange(many.sum())].reshape(len(first), -1)


_LETTERS = spelled([f"{word} " for word in WORDS] + [f"{word}. " for word in WORDS], ALPHABET)
_SIZES = (_LETTERS != NOTHING).sum(1)
_NEEDLES = spelled([NEEDLE + city + OF for city in CITIES], ALPHABET)
_QUESTIONS = spelled([ASK + city + ANSWER for city in CITIES], ALPHABET)
_SHARES = np.cumsum(1 / np.arange(1, len(WORDS) + 1))
_ZIPF = np.repeat(np.arange(len(WORDS)), np.diff(np.round(2**16 * _SHARES / _SHARES[-1]).astype(np.int64), prepend=0))

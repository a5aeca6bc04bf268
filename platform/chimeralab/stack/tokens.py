"""Words and marks of the pattern language, each with its column."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from chimeralab.errors import PatternError

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<repeat>(?:[*×]\s*|x\s*(?=\d))(?P<count>\d+)\b)
    | (?P<number>-?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<mark>[()\[\],=@+:])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    kind: str  # repeat, number, name, string, mark, end
    text: str
    column: int  # from 1


def refusal(reason: str, column: int, remedy: str = "") -> PatternError:
    """An error at a column, counted from 1."""
    error = PatternError(reason, place=f"column {column}", remedy=remedy)
    error.column = column
    return error


def tokenise(text: str) -> list[Token]:
    """Raises PatternError where no token begins."""
    tokens: list[Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise refusal(f"unexpected {text[start : start + 8]!r}", start + 1)
        kind = next(k for k in ("repeat", "number", "name", "string", "mark") if match[k] is not None)
        value = match["count"] if kind == "repeat" else match[kind]
        shown = match.start(kind)
        tokens.append(Token(kind, value, shown + 1))
        position = match.end()
    return tokens


def instead(token: Token) -> str:
    """What stands there instead, for a message."""
    return f"not {token.text!r}" if token.kind != "end" else "but the text ends"


def number(token: Token) -> int | float:
    try:
        value = int(token.text) if re.fullmatch(r"-?\d+", token.text) else float(token.text)
    except ValueError:  # Python reads no integer of more than 4300 digits
        value = math.inf
    if math.isinf(value):
        raise refusal("this number is too large", token.column)
    return value


def string(token: Token) -> str:
    try:
        text: str = json.loads(token.text)
    except ValueError:
        raise refusal(f"{token.text} is not a string as JSON writes them", token.column) from None
    return text

"""Column types that hold the same values on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import math
from typing import Any

from sqlalchemy import BigInteger, Dialect, Double, Integer, Text
from sqlalchemy.types import TypeDecorator

# SQLite numbers rows by itself only in a column whose type is exactly INTEGER (which holds 64 bits there).
RowId = BigInteger().with_variant(Integer, "sqlite")


class Measured(TypeDecorator[float]):
    """A float that may be NaN or ±inf.

    SQLite turns NaN into NULL by itself. PostgreSQL would keep it, and sort it above every number. We write
    NULL on both, so that ordering (NULLS LAST), min() and max() mean the same: a NaN never wins.
    """

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        return math.nan if value is None else value


class Words(TypeDecorator[str]):
    """Any text that a person or a program wrote.

    PostgreSQL has no NUL character and UTF-8 no lone surrogate. They are replaced (by U+FFFD and `?`): a
    broken character in an error message should not cost the message.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """The text as `Words` stores it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


class Json(TypeDecorator[Any]):
    """JSON as ASCII text, with Python's bare `NaN` and `Infinity`, which PostgreSQL's own type refuses."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return json.dumps(value, separators=(",", ":"), default=str)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)

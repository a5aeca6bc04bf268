"""How things are shown: tables for people on stdout, progress and errors on stderr."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chimeralab.errors import LabError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

STATUS_STYLE = {
    "queued": "dim",
    "starting": "cyan",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "pruned": "magenta",
}


def fail(error: LabError, code: int) -> NoReturn:
    """One message: place, reason, remedy."""
    place = f"[bold]{escape(error.place)}:[/] " if error.place else ""
    remedy = f"\n[dim]{escape(error.remedy)}[/]" if error.remedy else ""
    err.print(f"[red]error[/] {place}{escape(error.reason)}{remedy}", soft_wrap=True)
    sys.exit(code)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A table; columns whose cells are all numbers or empty are set flush right."""
    cells = [[_cell(value) for value in row] for row in rows]
    shown = Table(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for index, header in enumerate(headers):
        column = [row[index] for row in cells]
        numeric = any(column) and all(not text or text[0].isdigit() or text[0] in "-+" for text in column)
        shown.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        shown.add_row(*(escape(text) for text in row))
    return shown


def status(text: str) -> str:
    """A run's status with its colour, as markup."""
    return f"[{STATUS_STYLE.get(text, '')}]{text}[/]"


def count(value: float | None) -> str:
    """12_345 → 12.3k."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T", "P"))


def size(value: float | None) -> str:
    """Bytes in binary units."""
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _scaled(value: float | None, base: int, units: Sequence[str]) -> str:
    if value is None:
        return ""
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value /= base
        power += 1
    return f"{value:.3g}{units[power]}" if power or value != int(value) else f"{int(value)}{units[power]}"


def _cell(value: object) -> str:
    return "" if value is None else str(value)

"""Arguments that no kernel can take, refused with one message."""

from __future__ import annotations

from chimeralab import KernelError


def check_window(causal: bool, window: int | None) -> None:
    """Raises KernelError: a window without causality, or an empty one."""
    if window is None:
        return
    if not causal:
        raise KernelError("a window looks back from a query", place="attention", remedy="Set causal=True")
    if window < 1:
        raise KernelError(
            f"a window of {window} keys is empty",
            place="attention",
            remedy="It counts the query's own position: 1 or more",
        )


def check_choice(op: str, name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    """Raises KernelError: `value` is not one of `known`."""
    if value not in known:
        raise KernelError(f"unknown {name} {value!r}", place=op, remedy=f"Known: {', '.join(map(repr, known))}")


def check_pair(op: str, first: str, x: object | None, second: str, y: object | None) -> None:
    """Raises KernelError: one of two arguments that come together is missing."""
    if (x is None) != (y is None):
        given, missing = (first, second) if y is None else (second, first)
        raise KernelError(f"{given!r} is given and {missing!r} is not", place=op, remedy="Give both or neither")

"""Errors that people read: what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabError(Exception):
    """An error that a user can act on.

    `place` says where ("layer 7", "task.options.files"), `remedy` what to do. Both may be empty.
    The command line prints it without a traceback; the dashboard shows it beside the field.
    """

    def __init__(self, reason: str, *, place: str = "", remedy: str = "") -> None:
        self.reason, self.place, self.remedy = reason, place, remedy
        super().__init__(reason, place, remedy)

    def __str__(self) -> str:
        text = f"{self.place}: {self.reason}" if self.place else self.reason
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.reason, self.place, self.remedy)


def _rebuild(cls: type[LabError], reason: str, place: str, remedy: str) -> LabError:
    return cls(reason, place=place, remedy=remedy)


class PatternError(LabError):
    """The text of a stack cannot be read; `column` counts from 1."""

    column: int = 0


class SpecError(LabError):
    """A stack, task or run is described in a way that cannot be built."""


class PluginError(LabError):
    """A plugin is missing, broken or breaks its contract."""


class KernelError(LabError):
    """No kernel can compute an op as asked."""


class DataError(LabError):
    """A corpus is missing, empty or unreadable."""


class ResourceError(LabError):
    """More memory, processors or GPUs are wanted than there are."""


class StoreError(LabError):
    """The database cannot be reached or does not fit."""


class RequestError(StoreError):
    """What is asked of the store cannot be: no such run, a run in another state, an unknown order."""


class ClusterError(LabError):
    """The Ray cluster cannot be started or reached."""


class StaleAttempt(StoreError):
    """A write came from an attempt that is no longer the run's current one."""


class RunFailed(LabError):
    """A run stopped for a reason of its own: NaN loss, out of memory, unreadable data."""


def described(error: Exception) -> str:
    """What a person should read of it: an error of ours speaks for itself, any other needs its kind."""
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'mamba2'?`, or the list of known names when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}" if names else "None is installed"

"""Waiting for what a cluster works on, through the store, also while the store is away for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from chimeralab.store import StoreUnavailable

AWAY_SECONDS = 600.0  # workers and the dispatcher wait for the database too, and lose nothing meanwhile
T = TypeVar("T")
log = logging.getLogger(__name__)


def wait_for(look: Callable[[], tuple[T | None, str]], *, timeout: float | None, poll: float) -> T:
    """Look until there is something.

    Args:
        look: reads the store; what it found (None while it is too early), and how far it came.
        timeout: seconds; None waits on.
        poll: seconds between two looks.

    Raises:
        TimeoutError: after `timeout` seconds; it says how far it came.
        StoreUnavailable: the store was away for `AWAY_SECONDS`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    told, away_since = "nothing was seen", None
    while True:
        try:
            found, told = look()
            if found is not None:
                return found
            away_since = None
        except StoreUnavailable as error:
            if away_since is None:
                away_since = time.monotonic()
                log.warning("the store is away; waiting for it: %s", error)
            elif time.monotonic() - away_since > AWAY_SECONDS:
                raise
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"not ended in {timeout:g} s: {told}")
        time.sleep(poll)

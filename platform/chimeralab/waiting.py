"""Waiting for what a cluster works on, through the store, also while the store is away for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from chimeralab.store import Store, StoreUnavailable

AWAY_SECONDS = 600.0  # workers and the dispatcher wait for the database too, and lose nothing meanwhile
SILENT_SECONDS = 30.0  # a cluster that was silent for longer counts as gone
T = TypeVar("T")
log = logging.getLogger(__name__)


class Silence:
    """How long clusters have been silent, by this process's own clock: that of another machine may differ."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float | None, float]] = {}

    def seconds(self, cluster: str, heartbeat_at: float | None) -> float:
        """Since its last heartbeat was first seen here."""
        now = time.monotonic()
        last, since = self._heard.get(cluster, (heartbeat_at, now))
        if last != heartbeat_at:
            since = now
        self._heard[cluster] = (heartbeat_at, since)
        return now - since

    def forget(self) -> None:
        """Begin anew, after a time in which nobody could be heard."""
        self._heard.clear()


def wait_for(store: Store, look: Callable[[], tuple[T | None, str]], *, timeout: float | None, poll: float) -> T:
    """Look until there is something. Says once that the store is away, and once that no cluster is at work.

    Args:
        store: what the clusters' heartbeats stand in.
        look: reads the store; what it found (None while it is too early), and how far it came.
        timeout: seconds; None waits on.
        poll: seconds between two looks.

    Raises:
        TimeoutError: after `timeout` seconds; it says how far it came.
        StoreUnavailable: the store was away for `AWAY_SECONDS`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    told, away_since, silence, warned = "nothing was seen", None, Silence(), False
    while True:
        try:
            found, told = look()
            if found is not None:
                return found
            away_since = None
            if not warned and _silent(store, silence):
                warned = True
                log.warning("no cluster has been heard of for %g s; runs wait until one is started", SILENT_SECONDS)
        except StoreUnavailable as error:
            if away_since is None:
                away_since = time.monotonic()
                log.warning("the store is away; waiting for it: %s", error)
            elif time.monotonic() - away_since > AWAY_SECONDS:
                raise
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"not ended in {timeout:g} s: {told}")
        time.sleep(poll)


def _silent(store: Store, silence: Silence) -> bool:
    newest = max((cluster.heartbeat_at for cluster in store.clusters()), default=None)
    return silence.seconds("any", newest) > SILENT_SECONDS

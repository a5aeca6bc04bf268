"""Tells plugins what happens to runs, on a thread of its own: one that is slow or raises holds up no run."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from chimeralab.plugins import registry

WAITING = 10_000  # calls; a plugin that is further behind than this misses some
log = logging.getLogger(__name__)


class Hooks:
    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(WAITING)
        threading.Thread(target=self._loop, name="hooks", daemon=True).start()

    def tell(self, hook: str, **what: Any) -> None:
        try:
            self._calls.put_nowait((hook, what))
        except queue.Full:
            log.warning("plugins are too slow: they are not told of %s %s", hook, what)

    def _loop(self) -> None:
        while True:
            hook, what = self._calls.get()
            registry().notify(hook, **what)

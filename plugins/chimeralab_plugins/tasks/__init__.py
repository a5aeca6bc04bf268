"""First-party tasks."""

from __future__ import annotations

from chimeralab import hookimpl
from chimeralab.contracts import Task


@hookimpl
def register_tasks() -> list[type[Task]]:
    from chimeralab_plugins.tasks.mqar import Mqar
    from chimeralab_plugins.tasks.text import Text

    return [Text, Mqar]

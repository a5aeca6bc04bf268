"""First-party presets: whole stacks by name, in the pattern language, one table a family.

A name alone is a small stack for any width; a name with a size has the shapes of a published model. Some name mixers
that another plugin may bring: the lab lists those that can be built.
"""

from __future__ import annotations

from collections.abc import Sequence

from chimeralab import Preset, hookimpl
from chimeralab_plugins.presets import convolutional, hybrids, recurrent, transformers

PRESETS = (*hybrids.PRESETS, *transformers.PRESETS, *recurrent.PRESETS, *convolutional.PRESETS)


@hookimpl
def register_presets() -> Sequence[Preset]:
    return PRESETS

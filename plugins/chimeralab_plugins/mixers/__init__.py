"""First-party mixers."""

from chimeralab import Mixer, hookimpl
from chimeralab_plugins.mixers.attention import Attention
from chimeralab_plugins.mixers.mamba2 import Mamba2


@hookimpl
def register_mixers() -> list[type[Mixer]]:
    return [Attention, Mamba2]

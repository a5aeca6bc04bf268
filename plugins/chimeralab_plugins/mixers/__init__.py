"""First-party mixers."""

from chimeralab import Mixer, hookimpl
from chimeralab_plugins.mixers.attention import Attention
from chimeralab_plugins.mixers.gla import GLA
from chimeralab_plugins.mixers.linear_attention import LinearAttention
from chimeralab_plugins.mixers.mamba2 import Mamba2
from chimeralab_plugins.mixers.short_conv import ShortConv


@hookimpl
def register_mixers() -> list[type[Mixer]]:
    return [Attention, Mamba2, GLA, LinearAttention, ShortConv]

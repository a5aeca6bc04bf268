"""First-party presets: whole stacks by name, in the pattern language."""

from __future__ import annotations

from collections.abc import Sequence

from chimeralab import Preset, hookimpl

PRESETS = (
    Preset(
        "hybrid-demo",
        "every(3, attention, offset=2, base=mamba2) x6",
        "Attention every third layer, Mamba-2 between",
        "the demo of this project",
    ),
    Preset("transformer", "attention x6", "Llama-style transformer", "arXiv 2302.13971"),
    Preset("mistral", "attention[window=128] x6", "Sliding-window transformer", "arXiv 2310.06825"),
    Preset("mamba2", "mamba2 x12, ffn=none", "Mamba-2, no feed-forward", "arXiv 2405.21060"),
    Preset("gla", "gla x6", "Gated linear attention", "arXiv 2312.06635"),
    Preset(
        "samba",
        "(mamba2, attention[window=128]) x3",
        "State space and sliding window, one to one",
        "arXiv 2406.07522, with Mamba-2 in place of Mamba",
    ),
    Preset(
        "one-in-eight",
        "every(8, attention, offset=4, base=mamba2) x8",
        "One attention layer in eight",
        "Jamba's ratio, arXiv 2403.19887",
    ),
)


@hookimpl
def register_presets() -> Sequence[Preset]:
    return PRESETS

"""Megatron's hybrid patterns, `M-M*-`: one letter a sublayer.

    M  Mamba-2      G  gated delta net     *  attention
    -  MLP          E  mixture of experts
    |  where the pipeline is cut           /  the patterns of multi-token prediction follow

A Megatron layer is one norm, one sublayer, one residual; a layer of the lab is a mixer and then a feed-forward, each
with its own. So a mixer and the feed-forward that follows it are one layer here, with the same arithmetic; a mixer
that none follows has `ffn=none`, and a feed-forward that follows no mixer stands on the mixer `identity`, which is
no branch at all.

Source: megatron/core/ssm/mamba_hybrid_layer_allocation.py of Megatron-LM.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chimeralab.stack.dialects.imported import Imported
from chimeralab.stack.spec import MAX_LAYERS, LayerSpec
from chimeralab.stack.tokens import refusal

MIXERS = {"M": "mamba2", "G": "gated_delta_net", "*": "attention"}
FEED_FORWARDS = {"-": "mlp", "E": "moe"}
CUT, PREDICTION = "|", "/"

Part = tuple[str, dict[str, Any]]  # a name with its options


def read_megatron(text: str) -> Imported:
    """Raises PatternError, with the column."""
    pattern = text.strip()
    start = len(text) - len(text.lstrip()) + 1
    main, slash, _ = pattern.partition(PREDICTION)
    sublayers: list[tuple[bool, Part]] = []
    for column, letter in enumerate(main, start):
        if letter in MIXERS:
            sublayers.append((True, (MIXERS[letter], {})))
        elif letter in FEED_FORWARDS:
            sublayers.append((False, (FEED_FORWARDS[letter], {})))
        elif letter != CUT:
            known = " ".join((*MIXERS, *FEED_FORWARDS, CUT, PREDICTION))
            raise refusal(f"{letter!r} is no sublayer", column, f"Known: {known}")
    if not sublayers:
        raise refusal("the pattern has no sublayers", start, "Write one, for instance M-M*-")
    layers = paired(sublayers)
    if len(layers) > MAX_LAYERS:
        raise refusal(f"more than {MAX_LAYERS} layers", start)
    notes = []
    if slash:
        notes.append("multi-token prediction, after the /, is left out")
    return Imported(layers, {}, tuple(notes))


def paired(sublayers: Iterable[tuple[bool, Part]]) -> tuple[LayerSpec, ...]:
    """Sublayers, each with whether it is a mixer, as layers."""
    layers: list[LayerSpec] = []
    open_mixer: Part | None = None
    for is_mixer, (name, options) in sublayers:
        if is_mixer:
            if open_mixer is not None:
                layers.append(LayerSpec(mixer=open_mixer[0], options=open_mixer[1], ffn="none"))
            open_mixer = (name, options)
        else:
            mixer, mixer_options = open_mixer or ("identity", {})
            layers.append(LayerSpec(mixer=mixer, options=mixer_options, ffn=name, ffn_options=options))
            open_mixer = None
    if open_mixer is not None:
        layers.append(LayerSpec(mixer=open_mixer[0], options=open_mixer[1], ffn="none"))
    return tuple(layers)

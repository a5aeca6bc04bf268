"""StackSpec → model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch

from chimeralab import ops
from chimeralab.contracts import Place, Readout
from chimeralab.stack.model import Layer, Norm, StackModel
from chimeralab.stack.resolve import ResolvedLayer, resolve
from chimeralab.stack.sharing import Undrawn, use
from chimeralab.stack.spec import StackSpec


def build(
    stack: StackSpec,
    vocab_size: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    classes: int = 0,
    input_features: int | None = None,
    readout: Callable[[int], Readout] | None = None,
) -> StackModel:
    """Build the model. Weights are drawn on the CPU so that a seed means the same on every device.

    Args:
        device: "meta" builds shapes only.
        seed: seeds torch's CPU generator first; None draws from where it stands.
        classes: that a stack with a condition can be told.
        input_features: numbers at each place of an input, in place of a token.
        readout: makes what takes the place of the head, from the width; see `Task.ends`.
    """
    ops.load()
    layers = resolve(stack)
    if seed is not None:
        torch.manual_seed(seed)
    meta = device is not None and torch.device(device).type == "meta"
    with torch.device("meta" if meta else "cpu"), Undrawn() if meta else nullcontext():
        shared: dict[str, Layer] = {}
        built = []
        for index, layer in enumerate(layers):
            if layer.share is None:
                built.append(_layer(layer, stack, Place(index, len(layers))))
                continue
            if layer.share not in shared:
                shared[layer.share] = _layer(layer, stack, Place(index, len(layers)))
            built.append(use(shared[layer.share], layer.lora))
        model = StackModel(built, stack, vocab_size, shared, classes, input_features, readout)
    return model.to(device=device, dtype=dtype)


def _layer(layer: ResolvedLayer, stack: StackSpec, place: Place) -> Layer:
    return Layer(
        layer.mixer(layer.config, stack.d_model, place),
        layer.ffn(layer.ffn_config, stack.d_model, place),
        partial(Norm, stack.d_model, stack.norm_eps, stack.norm, bool(stack.condition_width)),
        stack.residual,
        stack.condition_width,
    )

"""What a stack costs, before anything is built: parameters, FLOPs, state, memory to train.

Parameters, FLOPs and state come from the layers' own formulas. Activations are counted: each distinct layer runs
once on the meta device while what autograd saves is added up. The first such run in a process loads torch's compiler
(1 s), so it is left out where no batch size is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from chimeralab import ops
from chimeralab.contracts import Cost, Kernel, Readout
from chimeralab.stack.build import build
from chimeralab.stack.condition import PARTS, Condition, Modulation
from chimeralab.stack.resolve import ResolvedLayer, resolve
from chimeralab.stack.sharing import adapter_cost
from chimeralab.stack.spec import StackSpec

CONTEXTS = (256, 1024, 4096, 16384, 65536, 262144)

BANDWIDTH = {  # bytes/s of memory, from datasheets; "CPU" is two DDR5 channels
    "CPU": 60e9,
    "RTX 4090": 1.01e12,
    "A100": 2.04e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "B200": 8.0e12,
}


class LayerCost(BaseModel):
    """One layer's share."""

    mixer: str
    ffn: str
    params: int
    prefill_flops: float  # per token at the training length
    decode_flops: float  # per token at that context
    state_bytes: int  # per sequence at that context


class CostReport(BaseModel):
    """Costs of a stack. FLOPs per token, bytes per sequence unless said otherwise."""

    params: dict[
        str, int
    ]  # embedding, mixers, feed_forwards, norms, head; positions, condition, adapters where there are
    total_params: int
    active_params: int  # that work on a token: without the experts that it does not go to
    layers: list[LayerCost]
    sequence_length: int
    batch_size: int | None
    train_flops: float  # per token, forward and backward
    prefill_flops: float
    decode_flops: float
    contexts: list[int]
    state_bytes: list[int]  # at each context, bfloat16
    decode_flops_at: list[float]  # at each context
    memory: dict[str, int]  # bytes to train: weights, gradients, optimizer; with a batch size: activations, logits
    training_bytes: int  # their sum
    decode_tokens_per_second: dict[str, float]  # upper bound at batch 1 and the longest context: bytes read / bandwidth


@dataclass(frozen=True)
class _Parts:
    """One layer's costs; a second use of a shared layer has no parameters but its adapters'."""

    mixer: Cost
    ffn: Cost
    norms: Cost
    adapters: Cost

    @property
    def total(self) -> Cost:
        return self.mixer + self.ffn + self.norms + self.adapters


def _parts(stack: StackSpec) -> list[_Parts]:
    found, labels = [], set()
    D = stack.d_model
    for layer in resolve(stack):
        mixer, ffn, norms = layer.mixer_cost(D), layer.ffn_cost(D), _norms(layer, stack)
        if layer.share in labels:
            mixer, ffn, norms = (cost.without_params() for cost in (mixer, ffn, norms))
        if layer.share is not None:
            labels.add(layer.share)
        found.append(_Parts(mixer, ffn, norms, adapter_cost(layer, D)))
    return found


def _norms(layer: ResolvedLayer, stack: StackSpec) -> Cost:
    """A layer's norms, or what takes the place of their weights."""
    branches = (not layer.mixer.null) + (not layer.ffn.null)
    if stack.condition_width:
        return Modulation.cost(stack.condition_width, stack.d_model, PARTS[stack.residual], branches)
    count = {"sandwich": 2 * branches, "parallel": min(branches, 1)}.get(stack.residual, branches)
    return Cost.weights(count * _norm_params(stack))


def _norm_params(stack: StackSpec) -> int:
    return stack.d_model * (2 if stack.norm == "layer" else 1)


def _ends(stack: StackSpec, classes: int) -> dict[str, Cost]:
    """Learned positions, the norms after the embedding and before the head, and the condition."""
    C, D = stack.condition_width, stack.d_model
    norms = stack.embedding_norm + (stack.residual not in ("post", "adaptive"))
    return {
        "positions": Cost.weights(stack.positions * D),
        "norms": Cost.weights(norms * _norm_params(stack))
        + (Modulation.cost(C, D, 2) if stack.residual == "adaptive" else Cost()),
        "condition": Condition.cost(C, classes) if C else Cost(),
    }


def stack_cost(stack: StackSpec, classes: int = 0) -> Cost:
    """The layers, norms, learned positions and condition, without embedding and head."""
    return _body(_parts(stack), _ends(stack, classes))


def embedding_and_head(
    stack: StackSpec,
    vocab_size: int,
    input_features: int | None = None,
    readout: Callable[[int], Readout] | None = None,
    classes: int = 0,
) -> tuple[Cost, Cost]:
    """Both ends of a stack, without its condition; a head that shares the embedding's weights has no parameters."""
    D = stack.d_model
    embedding = Cost.linear(input_features, D, bias=True) if input_features else Cost.weights(vocab_size * D)
    if readout is not None:
        with torch.device("meta"):
            return embedding, readout(D).cost()
    head = Cost.linear(D, vocab_size)
    return embedding, head.without_params() if stack.tie_embeddings else head


def _body(parts: list[_Parts], ends: dict[str, Cost]) -> Cost:
    return Cost.total([*(part.total for part in parts), *ends.values()])


def cost(
    stack: StackSpec,
    *,
    vocab_size: int = 256,
    batch_size: int | None = None,
    sequence_length: int = 256,
    contexts: Sequence[int] | None = None,
    precision: str = "float32",
    fused: bool = False,
    classes: int = 0,
    input_features: int | None = None,
    readout: Callable[[int], Readout] | None = None,
) -> CostReport:
    """Cost of a stack with a vocabulary, trained on sequences of `sequence_length`.

    Args:
        batch_size: sequences in a forward pass; without it, memory for activations is not counted.
        contexts: context lengths at which state and decoding are reported.
        precision: "float32" or "bfloat16", of activations; weights and optimizer stay in float32.
        fused: ops that have a GPU kernel keep their inputs for the backward pass and nothing else.
        classes, input_features, readout: as `build` takes them.

    Raises:
        SpecError: a layer that cannot be built.
    """
    layers = resolve(stack)
    D, T = stack.d_model, sequence_length
    lengths = list(contexts or CONTEXTS)
    parts, ends = _parts(stack), _ends(stack, classes)
    body = _body(parts, ends)
    embedding, head = embedding_and_head(stack, vocab_size, input_features, readout)
    whole = body + embedding.without_params() + head
    params = {
        "embedding": embedding.params,
        "mixers": sum(part.mixer.params for part in parts),
        "feed_forwards": sum(part.ffn.params for part in parts),
        "norms": sum(part.norms.params for part in parts) + ends["norms"].params,
        "head": head.params,
    }
    if stack.positions:
        params["positions"] = ends["positions"].params
    if stack.condition_width:
        params["condition"] = ends["condition"].params
    if any(layer.lora for layer in layers):
        params["adapters"] = sum(part.adapters.params for part in parts)
    total = sum(params.values())
    memory = {
        "weights": 4 * total,
        "gradients": 4 * total,
        "optimizer": 8 * total,
    }
    if batch_size is not None:
        memory["activations"] = batch_size * _activation_bytes(stack, T, precision, fused)
        if readout is None:
            memory["logits"] = 2 * 4 * batch_size * T * vocab_size  # logits and their gradient, float32
        else:
            memory["readout"] = batch_size * _readout_bytes(readout, D, T)
    longest = lengths[-1]
    active = total - whole.inactive
    read = active - params.get("positions", 0) + D * bool(stack.positions)  # a token reads one row of a table
    if not input_features and not (stack.tie_embeddings and readout is None):  # the head does not read it whole
        read -= embedding.params - D
    decode_bytes = 2 * read + whole.state_bytes(longest)
    return CostReport(
        params=params,
        total_params=total,
        active_params=active,
        layers=[_layer_cost(layer, part.total, T) for layer, part in zip(layers, parts, strict=True)],
        sequence_length=T,
        batch_size=batch_size,
        train_flops=whole.train_flops(T),
        prefill_flops=whole.prefill_flops(T),
        decode_flops=whole.decode_flops(T),
        contexts=lengths,
        state_bytes=[whole.state_bytes(L) for L in lengths],
        decode_flops_at=[whole.decode_flops(L) for L in lengths],
        memory=memory,
        training_bytes=sum(memory.values()),
        decode_tokens_per_second={device: rate / decode_bytes for device, rate in BANDWIDTH.items()},
    )


def _layer_cost(layer: ResolvedLayer, total: Cost, T: int) -> LayerCost:
    return LayerCost(
        mixer=layer.mixer.name,
        ffn=layer.ffn.name,
        params=total.params,
        prefill_flops=total.prefill_flops(T),
        decode_flops=total.decode_flops(T),
        state_bytes=total.state_bytes(T),
    )


def _activation_bytes(stack: StackSpec, T: int, precision: str, fused: bool) -> int:
    """Bytes saved for the backward pass, of one sequence."""
    alone = (stack.model_copy(update={"layers": (layer,), "positions": 0}) for layer in stack.layers)
    return sum(_layer_activations(one.model_dump_json(), T, precision, fused) for one in alone)


def _readout_bytes(readout: Callable[[int], Readout], D: int, T: int) -> int:
    with torch.device("meta"):
        made, h = readout(D), torch.empty(1, T, D, requires_grad=True)
        return saved_bytes(lambda: made(h), exclude=[*made.parameters()])


@lru_cache(maxsize=512)
def _layer_activations(stack: str, T: int, precision: str, fused: bool = False) -> int:
    one = StackSpec.model_validate_json(stack)  # of one layer
    dtype = getattr(torch, precision)
    model = build(one, vocab_size=8, device="meta", dtype=dtype)
    x = torch.empty(1, T, one.d_model, device="meta", dtype=dtype, requires_grad=True)
    with ops.around(_KeepsInputs.call) if fused else nullcontext():
        return saved_bytes(lambda: model.layers[0](x)[0], exclude=[*model.parameters()])


class _KeepsInputs(torch.autograd.Function):
    """An op as autograd sees a fused kernel: one node that saved its inputs."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *args: Any) -> Any:
        ctx.save_for_backward(*[argument for argument in args if isinstance(argument, Tensor)])
        return function(*args)

    @staticmethod
    def call(kernel: Kernel, args: tuple) -> Any:
        fused = kernel.op == "attention" or any(k.tier not in ("reference", "torch") for k in ops.kernels(kernel.op))
        return _KeepsInputs.apply(kernel.function, *args) if fused else kernel.function(*args)


def saved_bytes(forward: Callable[[], Tensor], exclude: Sequence[Tensor] = ()) -> int:
    """Bytes that `forward()` keeps for its backward pass, each storage once, without those of `exclude`."""
    known = {tensor.untyped_storage()._cdata for tensor in exclude}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in known:
            kept[storage] = tensor  # holding the tensor keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total

"""The model: embedding, layers, norm, head. Reads top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from chimeralab import ops
from chimeralab.contracts import FeedForward, Mixer, ParamGroup, State


class LayerState(NamedTuple):
    mixer: State
    ffn: State


class Norm(nn.Module):
    """RMS norm over the width."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)


class Layer(nn.Module):
    """x + mixer(norm x), then x + ffn(norm x); a part that is null is not there."""

    is_use = False  # of a shared layer, which holds the weights

    def __init__(self, mixer: Mixer, ffn: FeedForward, d_model: int, eps: float) -> None:
        super().__init__()
        self.mixer_norm = None if mixer.null else Norm(d_model, eps)
        self.mixer = None if mixer.null else mixer
        self.ffn_norm = None if ffn.null else Norm(d_model, eps)
        self.ffn = None if ffn.null else ffn

    def forward(self, x: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:  # x: B T D
        mixer_state, ffn_state = state if state is not None else (None, None)
        if self.mixer is not None and self.mixer_norm is not None:
            y, mixer_state = self.mixer(self.mixer_norm(x), mixer_state)
            x = x + y
        if self.ffn is not None and self.ffn_norm is not None:
            y, ffn_state = self.ffn(self.ffn_norm(x), ffn_state)
            x = x + y
        return x, LayerState(mixer_state, ffn_state)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:  # x: B D
        mixer_state, ffn_state = state
        if self.mixer is not None and self.mixer_norm is not None:
            y, mixer_state = self.mixer.step(self.mixer_norm(x), mixer_state)
            x = x + y
        if self.ffn is not None and self.ffn_norm is not None:
            y, ffn_state = self.ffn.step(self.ffn_norm(x), ffn_state)
            x = x + y
        return x, LayerState(mixer_state, ffn_state)


class StackModel(nn.Module):
    """A token model over a stack of layers.

    `forward(tokens)` gives logits for every position; with a state it goes on where the state stopped.
    `shared` holds, by label, the layers whose weights some of `layers` use; it comes first, so that their parameters
    are named once, after the label.
    """

    def __init__(
        self,
        layers: list[Layer],
        d_model: int,
        vocab_size: int,
        *,
        eps: float,
        tie_embeddings: bool,
        shared: Mapping[str, Layer] | None = None,
    ) -> None:
        super().__init__()
        self.d_model, self.vocab_size = d_model, vocab_size
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.shared = nn.ModuleDict(shared or {})
        self.layers: Sequence[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = Norm(d_model, eps)
        self.head = None if tie_embeddings else nn.Linear(d_model, vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    @property
    def head_weight(self) -> Tensor:  # V D
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(self, tokens: Tensor, state: list[LayerState] | None = None) -> tuple[Tensor, list[LayerState]]:
        """Normed output of the last layer, B T D, and the state after the last token. tokens: B T."""
        x = self.embedding(tokens)
        states: list[LayerState] = []
        for index, layer in enumerate(self.layers):
            x, layer_state = layer(x, state[index] if state is not None else None)
            states.append(layer_state)
        return self.norm(x), states

    def forward(self, tokens: Tensor, state: list[LayerState] | None = None) -> tuple[Tensor, list[LayerState]]:
        """Logits, B T V, and the state after the last token."""
        h, states = self.hidden(tokens, state)
        return nn.functional.linear(h, self.head_weight), states

    def loss(self, tokens: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
        """Mean cross-entropy in nats over the counted targets, plus the layers' own losses."""
        h, _ = self.hidden(tokens)
        loss = ops.linear_cross_entropy(h.flatten(0, 1), self.head_weight, targets.flatten(), ignore_index=ignore_index)
        for layer in self.layers:
            extra = layer.ffn.auxiliary_loss() if layer.ffn is not None else None
            if extra is not None:
                loss = loss + extra
        return loss

    def step(self, tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """Logits B V for one token a sequence. tokens: B."""
        x = self.embedding(tokens)
        states = []
        for layer, layer_state in zip(self.layers, state, strict=True):
            x, layer_state = layer.step(x, layer_state)  # noqa: PLW2901
            states.append(layer_state)
        return nn.functional.linear(self.norm(x), self.head_weight), states

    def init_state(self, batch: int, max_length: int, *, dtype: torch.dtype | None = None) -> list[LayerState]:
        """State before the first token, on the model's device; `max_length` bounds the context."""
        where: dict[str, Any] = {
            "device": self.embedding.weight.device,
            "dtype": dtype or self.embedding.weight.dtype,
        }
        return [
            LayerState(
                layer.mixer.init_state(batch, max_length, **where) if layer.mixer is not None else None,
                layer.ffn.init_state(batch, max_length, **where) if layer.ffn is not None else None,
            )
            for layer in self.layers
        ]

    def param_groups(self) -> list[ParamGroup]:
        """The layers' own groups, merged by what they ask for; embeddings, head and adapters decay, norms do not."""
        shared: list[Layer] = [*self.shared.values()]  # type: ignore[list-item]
        owners = [*shared, *(layer for layer in self.layers if not layer.is_use)]
        tables = [self.embedding] + ([self.head] if self.head is not None else [])
        norms = [self.norm, *(norm for layer in owners for norm in (layer.mixer_norm, layer.ffn_norm) if norm)]
        groups = [
            ParamGroup([parameter for table in tables for parameter in table.parameters()]),
            ParamGroup([norm.weight for norm in norms], weight_decay=False),
        ]
        for layer in owners:
            for part in (layer.mixer, layer.ffn):
                groups += part.param_groups() if part is not None else []
        held = {id(parameter) for parameter in self.shared.parameters()}
        uses = [layer for layer in self.layers if layer.is_use]
        groups.append(ParamGroup([p for layer in uses for p in layer.parameters() if id(p) not in held]))
        merged: dict[tuple[bool, float], ParamGroup] = {}
        for group in groups:
            key = (group.weight_decay, group.lr_scale)
            merged.setdefault(key, ParamGroup([], *key)).params.extend(group.params)
        return [group for group in merged.values() if group.params]

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

"""The model: embedding, layers, norm, head. Reads top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from chimeralab import ops
from chimeralab.contracts import Context, FeedForward, Mixer, ParamGroup, Readout, State, Told
from chimeralab.contracts.ends import embedding
from chimeralab.stack.condition import CONDITION, PARTS, Condition, Modulated, Modulation
from chimeralab.stack.positions import Positions
from chimeralab.stack.spec import Residual, StackSpec


class LayerState(NamedTuple):
    mixer: State
    ffn: State


class Norm(nn.Module):
    """RMS norm over the width, or layer norm with a bias. A plain one has no weights: a condition takes their place."""

    def __init__(self, d_model: int, eps: float, kind: str = "rms", plain: bool = False) -> None:
        super().__init__()
        self.weight = None if plain else nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if kind == "layer" and not plain else None
        self.kind, self.eps = kind, eps

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rms":
            return ops.rms_norm(x, self.weight, self.eps)
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)

    def of_sum(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of x + branch, and x + branch."""
        if self.kind == "rms":
            return ops.add_rms_norm(x, branch, self.weight, self.eps)
        x = x + branch
        return self(x), x


class Layer(nn.Module):
    """The mixer's branch, then the feed-forward's; a part that is null is not there.

    `chimeralab.stack.spec.Residual` has the forms. A norm stands before a branch, after it, or at both ends.
    """

    is_use = False  # of a shared layer, which holds the weights
    dropout = 0.0  # share of a branch's output that is zeroed in training: the recipe's, not the stack's

    def __init__(
        self, mixer: Mixer, ffn: FeedForward, norm: Callable[[], Norm], residual: Residual = "pre", condition: int = 0
    ) -> None:
        super().__init__()
        self.residual = "pre" if residual == "parallel" and (mixer.null or ffn.null) else residual
        before, after = residual not in ("post", "reordered"), residual in ("post", "reordered", "sandwich")
        joint = self.residual == "parallel"
        self.mixer_norm = norm() if before and not mixer.null else None
        self.mixer = None if mixer.null else mixer
        self.mixer_out_norm = norm() if after and not mixer.null else None
        self.ffn_norm = norm() if before and not joint and not ffn.null else None
        self.ffn = None if ffn.null else ffn
        self.ffn_out_norm = norm() if after and not ffn.null else None
        branches = (not mixer.null) + (not ffn.null)
        modulated = condition > 0 and branches > 0
        width = (ffn if mixer.null else mixer).d_model
        self.modulation = Modulation(condition, width, PARTS[residual], branches) if modulated else None

    @property
    def norms(self) -> list[Norm]:
        places = (self.mixer_norm, self.mixer_out_norm, self.ffn_norm, self.ffn_out_norm)
        return [norm for norm in places if norm is not None]

    @property
    def norm_parameters(self) -> list[nn.Parameter]:
        """Of the norms, or of what takes the place of their weights."""
        parts = [*self.norms, *([self.modulation] if self.modulation is not None else [])]
        return [parameter for part in parts for parameter in part.parameters()]

    def forward(
        self, x: Tensor, state: LayerState | None = None, context: Context | None = None
    ) -> tuple[Tensor, LayerState]:  # x: B T D
        context = {} if context is None else context
        return self._run(
            x, state or LayerState(None, None), context, lambda part, y, state: part.forward_with(context, y, state)
        )

    def step(self, x: Tensor, state: LayerState, context: Context) -> tuple[Tensor, LayerState]:  # x: B D
        return self._run(x, state, context, lambda part, y, state: part.step_with(context, y, state))

    def _run(
        self, x: Tensor, state: LayerState, context: Context, call: Callable[..., Any]
    ) -> tuple[Tensor, LayerState]:
        mixer_state, ffn_state = state
        told = self.modulation(context, x) if self.modulation is not None else [Modulated()]
        if self.residual == "parallel" and self.mixer_norm is not None:
            normed = self.mixer_norm(x)
            mixed, mixer_state = call(self.mixer, normed, mixer_state)
            y, ffn_state = call(self.ffn, normed, ffn_state)
            return x + _dropped(self, mixed + y), LayerState(mixer_state, ffn_state)
        if self.mixer is not None:
            y, mixer_state = call(self.mixer, told[0].into(_normed(self.mixer_norm, x)), mixer_state)
            normed, x = self._join(x, told[0].out(y), self.mixer_out_norm, self.ffn_norm)
        else:
            normed = _normed(self.ffn_norm, x)
        if self.ffn is not None:
            y, ffn_state = call(self.ffn, told[-1].into(normed), ffn_state)
            _, x = self._join(x, told[-1].out(y), self.ffn_out_norm)
        return x, LayerState(mixer_state, ffn_state)

    def _join(self, x: Tensor, y: Tensor, norm: Norm | None, following: Norm | None = None) -> tuple[Tensor, Tensor]:
        """What the following norm makes of the stream that a branch's output has joined, and that stream."""
        if self.residual == "post":
            x = _normed(norm, x + _dropped(self, y))
            return x, x
        branch = _dropped(self, _normed(norm, y))
        if following is not None:
            return following.of_sum(x, branch)
        x = x + branch
        return x, x


def _normed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _dropped(part: Layer | StackModel, y: Tensor) -> Tensor:
    return nn.functional.dropout(y, part.dropout) if part.dropout and part.training else y


class StackModel(nn.Module):
    """A model over a stack of layers: of tokens, or of what a task's ends make of its data.

    `forward(tokens)` gives logits for every position; with a state it goes on where the state stopped. A state has
    an entry a layer, and with learned positions one more: the number of tokens seen.
    `shared` holds, by label, the layers whose weights some of `layers` use; it comes first, so that their parameters
    are named once, after the label. A stack with a condition has a table of `classes`; what each sequence is `told`
    goes into it. With `input_features` the embedding is a linear map of so many numbers a place, inputs are B T F; with
    a readout there is no head, and what is called logits is what the readout gives.
    """

    dropout = 0.0

    def __init__(
        self,
        layers: list[Layer],
        stack: StackSpec,
        vocab_size: int,
        shared: Mapping[str, Layer] | None = None,
        classes: int = 0,
        input_features: int | None = None,
        readout: Callable[[int], Readout] | None = None,
    ) -> None:
        super().__init__()
        D = stack.d_model
        self.spec, self.d_model, self.vocab_size = stack, D, vocab_size
        self.embedding_scale, self.logit_cap = stack.embedding_scale, stack.logit_cap
        self.embedding = embedding(input_features, D) if input_features else nn.Embedding(vocab_size, D)
        self.positions = Positions(stack.positions, D) if stack.positions else None
        self.embedding_norm = Norm(D, stack.norm_eps, stack.norm) if stack.embedding_norm else None
        C = stack.condition_width
        self.condition = Condition(C, classes) if C else None
        self.shared = nn.ModuleDict(shared or {})
        self.layers: Sequence[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        adaptive = stack.residual == "adaptive"
        self.norm = Norm(D, stack.norm_eps, stack.norm, plain=adaptive) if stack.residual != "post" else None
        self.modulation = Modulation(C, D, 2) if adaptive else None
        self.readout = readout(D) if readout is not None else None
        headless = stack.tie_embeddings or self.readout is not None
        self.head = None if headless else nn.Linear(D, vocab_size, bias=False)
        if not input_features:
            nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    @property
    def room(self) -> int | None:
        """Tokens that there are learned positions for; None: any number."""
        return len(self.positions.weight) if self.positions is not None else None

    @property
    def writes(self) -> bool:
        """Whether what it gives for one token can be the next: it reads tokens and scores each of them."""
        return self.readout is None and isinstance(self.embedding, nn.Embedding)

    @property
    def head_weight(self) -> Tensor:  # V D
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(
        self, tokens: Tensor, state: list[LayerState] | None = None, told: Told | None = None
    ) -> tuple[Tensor, list[LayerState]]:
        """Normed output of the last layer, B T D, and the state after the last token. tokens: B T."""
        x, seen = self._embed(tokens, state)
        states: list[LayerState] = []
        context = self._context(told, len(x))
        for index, layer in enumerate(self.layers):
            x, layer_state = layer(x, state[index] if state is not None else None, context)
            states.append(layer_state)
        return self._finish(x, context), states + seen

    def forward(
        self, tokens: Tensor, state: list[LayerState] | None = None, told: Told | None = None
    ) -> tuple[Tensor, list[LayerState]]:
        """Logits, B T V, and the state after the last token."""
        h, states = self.hidden(tokens, state, told)
        return self.logits(h), states

    def logits(self, h: Tensor) -> Tensor:  # ... D -> ... V
        if self.readout is not None:
            return self.readout(h)
        logits = nn.functional.linear(h, self.head_weight)
        return logits if self.logit_cap is None else self.logit_cap * torch.tanh(logits / self.logit_cap)

    def loss(self, tokens: Tensor, targets: Tensor, ignore_index: int = -100, told: Told | None = None) -> Tensor:
        """Mean cross-entropy in nats over the counted targets, or the readout's loss, plus the layers' own losses."""
        h, _ = self.hidden(tokens, told=told)
        if self.readout is not None:
            loss = self.readout.loss(h, targets)
        else:
            loss = self._cross_entropy(h.flatten(0, 1), targets.flatten(), ignore_index)
        for layer in self.layers:
            extra = layer.ffn.auxiliary_loss() if layer.ffn is not None else None
            if extra is not None:
                loss = loss + extra
        return loss

    def step(self, tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """Logits B V for one token a sequence. tokens: B."""
        x, seen = self._embed(tokens.unsqueeze(1), state)
        x, states = x.squeeze(1), []
        context = self._context(None, len(x))
        for index, layer in enumerate(self.layers):
            x, layer_state = layer.step(x, state[index], context)
            states.append(layer_state)
        return self.logits(self._finish(x, context)), states + seen

    def set_dropout(self, share: float) -> None:
        """Zero so much of the embeddings and of each branch's output at random while training."""
        self.dropout = share
        for module in self.modules():
            if isinstance(module, Layer):
                module.dropout = share

    def _context(self, told: Told | None, batch: int) -> Context:
        return {} if self.condition is None else {CONDITION: self.condition(told, batch)}

    def _finish(self, x: Tensor, context: Context) -> Tensor:  # B T D, or B D in a step
        x = _normed(self.norm, x)
        return x if self.modulation is None else self.modulation(context, x)[0].into(x)

    def _embed(self, tokens: Tensor, state: list[LayerState] | None) -> tuple[Tensor, list[LayerState]]:
        """Embeddings, B T D, and the number of tokens seen, where positions need it. tokens: B T, or B T F."""
        dtype = self.embedding.weight.dtype
        x = self.embedding(tokens.to(dtype) if tokens.is_floating_point() else tokens).to(dtype)
        if self.embedding_scale != 1:
            x = x * self.embedding_scale
        seen = []
        if self.positions is not None:
            x, count = self.positions(x, state[-1].mixer if state is not None else None)
            seen = [LayerState(count, None)]
        return _dropped(self, _normed(self.embedding_norm, x)), seen

    def _cross_entropy(self, h: Tensor, targets: Tensor, ignore_index: int) -> Tensor:  # h: M D; targets: M
        if self.logit_cap is None:
            return ops.linear_cross_entropy(h, self.head_weight, targets, ignore_index=ignore_index)
        total = nn.functional.cross_entropy(self.logits(h).float(), targets, ignore_index=ignore_index, reduction="sum")
        return total / (targets != ignore_index).sum().clamp(min=1)

    def init_state(self, batch: int, max_length: int, *, dtype: torch.dtype | None = None) -> list[LayerState]:
        """State before the first token, on the model's device; `max_length` bounds the context."""
        where: dict[str, Any] = {
            "device": self.embedding.weight.device,
            "dtype": dtype or self.embedding.weight.dtype,
        }
        states = [
            LayerState(
                layer.mixer.init_state(batch, max_length, **where) if layer.mixer is not None else None,
                layer.ffn.init_state(batch, max_length, **where) if layer.ffn is not None else None,
            )
            for layer in self.layers
        ]
        if self.positions is not None:
            states.append(LayerState(torch.zeros((), dtype=torch.int64, device=where["device"]), None))
        return states

    def param_groups(self) -> list[ParamGroup]:
        """The layers' own groups, merged by what they ask for; tables, head and adapters decay, norms and the
        condition do not."""
        shared: list[Layer] = [*self.shared.values()]  # type: ignore[list-item]
        owners = [*shared, *(layer for layer in self.layers if not layer.is_use)]
        places = (self.embedding, self.positions, self.head)
        tables: list[nn.Parameter] = [place.weight for place in places if place is not None]  # type: ignore[misc]
        ends = (self.embedding_norm, self.norm, self.condition, self.modulation)
        norms = [parameter for part in ends if part is not None for parameter in part.parameters()]
        norms += [parameter for layer in owners for parameter in layer.norm_parameters]
        groups = [
            ParamGroup(tables),
            ParamGroup(norms, weight_decay=False),
        ]
        if isinstance(self.embedding, nn.Linear):
            groups.append(ParamGroup([self.embedding.bias], weight_decay=False))
        groups += self.readout.param_groups() if self.readout is not None else []
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

"""Mixture of experts: a router sends each token to K of E feed-forwards."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, FeedForward, FeedForwardConfig, Place, SpecError, State, ops
from chimeralab_plugins.activation import ACTIVATIONS
from chimeralab_plugins.feed_forwards.gated import GatedConfig, GeGLU, GeGLUConfig, SwiGLU
from chimeralab_plugins.feed_forwards.mlp import MLP, MLPConfig
from chimeralab_plugins.projection import projection
from chimeralab_plugins.routing import Routing, balance_loss, route, z_loss
from chimeralab_plugins.state_space.parameters import full_precision

GATED = {"swiglu": "silu", "geglu": "gelu_tanh"}  # with a gate; the others are activations of a plain MLP


class MoEConfig(FeedForwardConfig):
    experts: int = Field(8, ge=1, le=4096, description="Experts E")
    top_k: int = Field(2, ge=1, le=256, description="Experts K that a token goes to")
    hidden: int | None = Field(
        None, ge=1, description="Width of an expert; default 8/3 of the model's, rounded up to a multiple of 64"
    )
    expert: Literal["swiglu", "geglu", "gelu", "relu2"] = Field(
        "swiglu", description="What an expert is: gated, or an MLP with this activation (relu2 in Nemotron-H)"
    )
    router: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="Scores of the experts: softmax (Mixtral, Jamba), or each by itself (DeepSeek-V3)"
    )
    renormalise: bool = Field(True, description="The weights of a token's experts sum to 1; not in Jamba")
    scale: float = Field(1.0, gt=0, description="Multiplies those weights; 2.5 in DeepSeek-V3")
    groups: int = Field(1, ge=1, description="Groups of experts; a token goes to the best few of them (DeepSeek-V3)")
    top_groups: int = Field(1, ge=1, description="How many groups a token may go to")
    bias_rate: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Step by which a bias on each score, for the choice alone, moves in training towards even loads; "
        "0.001 in DeepSeek-V3; 0: the bias stays; empty: there is none",
    )
    shared: int = Field(
        0, ge=0, description="Width of a feed-forward that sees every token, beside the experts; 0: none"
    )
    shared_gate: bool = Field(False, description="A sigmoid gate on what the shared feed-forward adds (Qwen3-Next)")
    balance_loss: float = Field(0.01, ge=0, description="Weight of the load-balancing loss in training")
    z_loss: float = Field(0.0, ge=0, description="Weight of the router's z-loss in training; 0.001 in ST-MoE")

    def width(self, d_model: int) -> int:
        return GatedConfig(hidden=self.hidden).width(d_model)

    def check(self, d_model: int) -> None:
        def refuse(what: str, remedy: str) -> SpecError:
            return SpecError(what, place="feed-forward moe", remedy=remedy)

        if self.top_groups > self.groups or self.experts % self.groups:
            raise refuse(
                f"{self.experts} experts do not go into {self.groups} groups of which {self.top_groups} are chosen",
                "Choose groups that divide the experts, and top_groups up to their number",
            )
        if self.top_k > self.experts // self.groups * self.top_groups:
            where = f" in {self.top_groups} of {self.groups} groups" if self.groups > 1 else ""
            raise refuse(f"a token cannot go to {self.top_k} of {self.experts} experts{where}", "Lower top_k")
        if self.top_k == 1 and self.renormalise and self.experts > 1:
            raise refuse("a weight over itself is 1, which never teaches the router", "Set renormalise=false")
        if self.shared_gate and not self.shared:
            raise refuse("shared_gate gates a feed-forward that is not there", "Set shared to its width")

    @property
    def routing(self) -> Routing:
        return Routing(self.router, self.top_k, self.renormalise, self.scale, self.groups, self.top_groups)

    def dense(self, d_model: int) -> tuple[type[FeedForward], FeedForwardConfig]:
        """The shared feed-forward: of the experts' kind."""
        if self.expert == "swiglu":
            return SwiGLU, GatedConfig(hidden=self.shared)
        if self.expert == "geglu":
            return GeGLU, GeGLUConfig(hidden=self.shared)
        activation: Literal["gelu_tanh", "relu2"] = "relu2" if self.expert == "relu2" else "gelu_tanh"
        return MLP, MLPConfig(ratio=self.shared / d_model, bias=False, activation=activation)


class MoE(FeedForward):
    """y = Σ_{e ∈ top-K} w_e(x) · expert_e(x) (+ shared(x), which may have a gate σ(v · x)).

    The router's scores are s = softmax(R x) or σ(R x), in float32 or better. The K best experts, within the best groups
    where there are groups, weigh w = scale · s, over their sum with `renormalise`. No token is dropped, whatever the
    loads: rows are sorted by expert and each expert takes its own (MegaBlocks, arXiv 2211.15841).

    In training, two losses: balance_loss · E Σ_e f_e P_e, with f_e the tokens that go to e over all tokens and P_e its
    mean score (Switch Transformer, arXiv 2101.03961, equation 4, as Mixtral counts K choices), for this layer alone;
    and z_loss · mean log² Σ exp(R x) (ST-MoE, arXiv 2202.08906, equation 5). With `bias_rate` a bias on the choice
    evens the loads without a loss (arXiv 2408.15664); groups and sigmoid are DeepSeek-V3's (arXiv 2412.19437, 2.1.2).

    Starts: Switch Transformer's small router, variance 0.1 / D (section 2.4).
    """

    name = "moe"
    title = "Mixture of experts"
    summary = "A router sends each token to a few of many feed-forwards"
    source = "https://arxiv.org/abs/2101.03961"
    color = "#d97a2b"
    ops = ("grouped_linear", "swiglu")
    Config = MoEConfig
    config: MoEConfig
    choice_bias: Tensor | None

    def __init__(self, config: MoEConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        E, D, hidden = config.experts, d_model, config.width(d_model)
        into = hidden * (2 if config.expert in GATED else 1)
        self.router = nn.Parameter(torch.randn(E, D) * (0.1 / D) ** 0.5)
        self.experts_in = nn.Parameter(torch.randn(E, into, D) * D**-0.5)  # gate above up
        self.experts_out = nn.Parameter(torch.randn(E, D, hidden) * (hidden * 2 * place.layers) ** -0.5)
        self.shared: FeedForward | None = None
        if config.shared:
            dense, dense_config = config.dense(d_model)
            self.shared = dense(dense_config, d_model, place)
        self.shared_gate = projection(D, 1) if config.shared_gate else None
        self.register_buffer("choice_bias", None if config.bias_rate is None else torch.zeros(E))
        self._auxiliary: Tensor | None = None

    @classmethod
    def cost(cls, config: MoEConfig, d_model: int) -> Cost:
        E, D, hidden = config.experts, d_model, config.width(d_model)
        into = hidden * (2 if config.expert in GATED else 1)
        one = into * D + D * hidden
        total = Cost(params=E * one, inactive=(E - config.top_k) * one) + Cost.linear(D, E)
        total += ops.grouped_linear_cost(D, into, config.top_k) + ops.grouped_linear_cost(hidden, D, config.top_k)
        if config.shared:
            dense, dense_config = config.dense(d_model)
            total += dense.cost(dense_config, d_model)
        return total + Cost.linear(D, 1) if config.shared_gate else total

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:  # x: B T D
        E, K = self.config.experts, self.config.top_k
        rows = x.flatten(0, 1)  # N D
        wide = torch.promote_types(x.dtype, torch.float32)
        with full_precision(x):  # a rounded score would send a token to another expert
            logits = nn.functional.linear(rows.to(wide), self.router.to(wide))  # N E
        scores, weights, chosen = route(self.config.routing, logits, self.choice_bias)  # N E, N K, N K
        experts, order = chosen.flatten().sort(stable=True)  # N·K
        ends = torch.searchsorted(experts, torch.arange(E, device=x.device), right=True, out_int32=True)
        inside = self._activate(ops.grouped_linear(rows.index_select(0, order // K), self.experts_in, ends))
        sorted_y = ops.grouped_linear(inside, self.experts_out, ends)
        y = torch.zeros_like(sorted_y).index_copy(0, order, sorted_y).unflatten(0, (-1, K))  # N K D
        y = (weights.unsqueeze(-1) * y).sum(1).to(x.dtype).view_as(x)
        if self.shared is not None:
            beside = self.shared(x)[0]
            y = y + (beside if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * beside).to(x.dtype)
        self._auxiliary = self._even_out(logits, scores, ends) if self.training else None
        return y, state

    def _activate(self, h: Tensor) -> Tensor:
        kind = self.config.expert
        if kind not in GATED:
            return ACTIVATIONS["relu2" if kind == "relu2" else "gelu_tanh"](h)
        gate, up = h.chunk(2, -1)
        return ops.swiglu(gate, up) if kind == "swiglu" else ACTIVATIONS[GATED[kind]](gate) * up

    def _even_out(self, logits: Tensor, scores: Tensor, ends: Tensor) -> Tensor | None:
        """The losses of these tokens; the bias moves."""
        config, loads = self.config, torch.diff(ends, prepend=ends.new_zeros(1)).to(scores.dtype)
        if self.choice_bias is not None and config.bias_rate:
            with torch.no_grad():
                self.choice_bias.add_(config.bias_rate * torch.sign(loads.mean() - loads))
        losses = []
        if config.balance_loss:
            losses.append(config.balance_loss * balance_loss(scores, loads))
        if config.z_loss:
            losses.append(config.z_loss * z_loss(logits))
        return sum(losses[1:], losses[0]) if losses else None

    def auxiliary_loss(self) -> Tensor | None:
        return self._auxiliary

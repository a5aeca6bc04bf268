"""RWKV-7 (Goose): a matrix state that each token edits by a generalised delta rule."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Context, Cost, Place, ops
from chimeralab_plugins import rwkv
from chimeralab_plugins.head_norm import head_norm
from chimeralab_plugins.rwkv_heads import RWKVConfig, RWKVMixer, RWKVState
from chimeralab_plugins.token_shift import previous_tokens

USES = 6  # of a shifted token: for r, w, k, v, a, g


class RWKV7Config(RWKVConfig):
    mixer: ClassVar[str] = "rwkv7"

    head_dim: int = Field(64, ge=2, le=512, description="Width K of a head")
    decay_rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of the map from token to decay; default 2.5 √width · head_dim / 64"
    )
    rate_rank: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Rank of the map from token to in-context learning rate; default 2.5 √width · head_dim / 64",
    )
    value_rank: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Rank of the map from token to its share of the first layer's value; default"
        " 1.7 √width · head_dim / 64",
    )
    gate_rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of the map from token to output gate; default 5 √width"
    )

    def ranks(self, d_model: int) -> tuple[int, int, int, int]:
        """(decay, rate, value, gate); the defaults are the authors', multiples of 32."""
        narrow = _multiple_of_32(2.5 * math.sqrt(d_model) * self.head_dim / 64)
        value = _multiple_of_32(1.7 * math.sqrt(d_model) * self.head_dim / 64)
        gate = _multiple_of_32(5 * math.sqrt(d_model))
        return self.decay_rank or narrow, self.rate_rank or narrow, self.value_rank or value, self.gate_rank or gate


class RWKV7(RWKVMixer):
    """S_t = (diag(w_t) − (a_t ⊙ κ_t) κ_tᵀ) S_{t-1} + k̃_t v_tᵀ,  o_t = S_tᵀ r_t,  y_t = W_o (g_t ⊙ (norm(o_t) + u_t)),

    with κ = normalised k ⊙ ξ in each head, k̃ = k ⊙ (1 + (a − 1) ⊙ α), u = (r · (ρ ⊙ k̃)) v, the norm a layer norm a
    head, and, each from its own mix x + (x_{t-1} − x) ⊙ μ of the token,

        r, k, v' = W x;  v = v' + (v₁ − v') ⊙ ν;  ν = σ(ν₀ + x A_v B_v)  (x here as for v');
        w = exp(−e^{−1/2} σ(w₀ + tanh(x A_w) B_w));  a = σ(a₀ + x A_a B_a);  g = σ(x A_g) B_g.

    v₁ is v' of the stack's first RWKV-7 layer of this width. In that layer v = v', and ν has no effect; a layer cannot
    know that it is the first (shared weights may stand at several depths), so that it has ν all the same.

    Source: RWKV-7 "Goose" (arXiv 2503.14456), section 4; ranks, start and learning rates as RWKV-LM.
    """

    name = "rwkv7"
    title = "RWKV-7"
    family = "Delta rule"
    summary = "Goose: a generalised delta rule with decay, removal and writing by channel; tracks states"
    source = "https://arxiv.org/abs/2503.14456"
    color = "#00afb9"
    ops = ("delta_rule",)
    context = True
    Config = RWKV7Config
    config: RWKV7Config

    def __init__(self, config: RWKV7Config, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        K = config.head_dim
        decay_rank, rate_rank, value_rank, gate_rank = config.ranks(d_model)
        deep, shallow = rwkv.depth(place)
        rise = torch.arange(d_model) / (d_model - 1)
        bend = (torch.arange(d_model) % K) / (K - 1) * 2 - 1  # −1 to 1 within a head
        bend = bend * bend.abs()
        self.mix = nn.Parameter(
            torch.stack([1 - rwkv.ramp(d_model, p * shallow) for p in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)])
        )
        self.decay = nn.Parameter(-5.5 + 6 * rise ** (1 + deep**0.3) + 2.5 * bend)
        self.decay_in, self.decay_out = _low_rank(d_model, decay_rank)
        self.rate = nn.Parameter(-0.19 + 0.3 * bend + 0.4 * (rise - 0.5))
        self.rate_in, self.rate_out = _low_rank(d_model, rate_rank)
        self.residual = nn.Parameter(0.73 - 0.4 * (rise - 0.5))  # ν₀
        self.residual_in, self.residual_out = _low_rank(d_model, value_rank)
        self.gate_in, self.gate_out = _low_rank(d_model, gate_rank)
        self.removal_scale = nn.Parameter(0.71 - 0.1 * (rise - 0.5))  # ξ
        self.rate_share = nn.Parameter(torch.full((d_model,), 1.02))  # α
        self.bonus = nn.Parameter(torch.full((d_model // K, K), -0.04))  # ρ
        self.receptance = rwkv.uniform(d_model, d_model, 0.5)
        self.key = rwkv.uniform(d_model, d_model, 0.05)
        self.value = rwkv.uniform(d_model, d_model, 0.5)
        self.norm = nn.Parameter(torch.full((d_model,), ((1 + place.layer) / place.layers) ** 0.7))
        self.norm_bias = nn.Parameter(torch.zeros(d_model))
        self.output = rwkv.matrix(d_model, d_model, 0)

    @classmethod
    def cost(cls, config: RWKV7Config, d_model: int) -> Cost:
        K = config.head_dim
        heads = d_model // K
        return (
            4 * Cost.linear(d_model, d_model)
            + 2 * Cost.linear(d_model, sum(config.ranks(d_model)))
            + Cost.weights((USES + 8) * d_model)
            + ops.delta_rule_cost(heads, heads, K, K, general=True)
            + cls.state_cost(config, d_model)
        )

    def forward(
        self, x: Tensor, state: RWKVState | None = None, context: Context | None = None
    ) -> tuple[Tensor, RWKVState]:  # x: B T D
        d = previous_tokens(x, state.last if state else None) - x
        x_r, x_w, x_k, x_v, x_a, x_g = (x + d * share for share in self.mix)
        wide = torch.promote_types(x.dtype, torch.float32)
        speed = self.decay.to(wide) + (torch.tanh(x_w @ self.decay_in) @ self.decay_out).to(wide)
        rate = torch.sigmoid(self.rate.to(wide) + (x_a @ self.rate_in @ self.rate_out).to(wide))
        k = self.key(x_k)
        removed = k.to(wide) * self.removal_scale.to(wide)
        k = k * (1 + (rate - 1) * self.rate_share.to(wide)).to(k.dtype)
        v = self.value(x_v)
        first = v if context is None else context.setdefault(f"rwkv7 value {self.d_model}", v)
        v = v + (first - v) * torch.sigmoid(self.residual + x_v @ self.residual_in @ self.residual_out)
        projected = (self.receptance(x_r), k, v, -math.exp(-0.5) * speed.sigmoid(), removed, rate)
        r, k, v, log_decay, removed, rate = (t.unflatten(-1, self.bonus.shape) for t in projected)
        removed = F.normalize(removed, dim=-1)
        o, kv = ops.delta_rule(
            r, k, v, None, log_decay, -removed, rate * removed, 1.0, initial_state=state.kv if state else None
        )
        o = head_norm(o, self.norm, self.norm_bias, 1e-5 * self.config.head_dim)
        own = ((r * k * self.bonus).sum(-1, keepdim=True) * v).flatten(-2)
        gate = torch.sigmoid(x_g @ self.gate_in) @ self.gate_out
        return self.output((o + own) * gate), RWKVState(x[:, -1], kv)


def _multiple_of_32(rank: float) -> int:
    return max(32, round(rank / 32) * 32)


def _low_rank(width: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Maps from D to R, zero, and from R to D, orthogonal."""
    out = torch.empty(rank, width)
    nn.init.orthogonal_(out, gain=0.1 * math.sqrt(max(1, rank / width)))
    return nn.Parameter(torch.zeros(width, rank)), nn.Parameter(out)

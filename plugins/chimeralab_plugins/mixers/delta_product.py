"""DeltaProduct: several steps of the delta rule for each token."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Place, ops
from chimeralab_plugins.delta import DeltaConfig, DeltaMixer
from chimeralab_plugins.projection import projection
from chimeralab_plugins.step_size import step_bias


class DeltaProductConfig(DeltaConfig):
    products: int = Field(2, ge=1, le=8, description="Householder products n: steps of the delta rule for each token")
    decay: bool = Field(True, description="Let the state fade, as in Gated DeltaNet")
    gate: bool = Field(True, description="Multiply the output by silu(W_g x)")
    heads: int | None = Field(None, ge=1, description="Heads; default such that a key has 256 channels, or one head")
    expand_k: float = Field(0.75, gt=0, le=8, description="Width of queries and keys, as a multiple of the model's")
    expand_v: float = Field(1.5, gt=0, le=8, description="Width of values, as a multiple of the model's")
    negative_eigenvalues: bool = Field(
        True, description="β up to 2: a product of two reflections turns the state, which state tracking needs"
    )
    mixer: ClassVar[str] = "delta_product"

    def head_count(self, d_model: int) -> tuple[int, int]:
        heads = self.heads or max(1, round(self.expand_k * d_model / 256))
        return heads, heads


class DeltaProduct(DeltaMixer):
    """S_{t,0} = α_t S_{t-1,n},  S_{t,j} = (I − β_{t,j} k_{t,j} k_{t,j}ᵀ) S_{t,j-1} + β_{t,j} k_{t,j} v_{t,j}ᵀ  (j ≤ n),

    o_t = S_{t,n}ᵀ q_t / √K and y_t = W_o (norm(o_t) ⊙ silu(W_g x_t)): n keys, values and β for each token, one decay α
    and one query. The sequence of n T steps runs through the same op.

    Source: DeltaProduct (arXiv 2502.10297); defaults as `GatedDeltaProduct` of flash-linear-attention.
    """

    name = "delta_product"
    title = "DeltaProduct"
    family = "Delta rule"
    summary = "Several delta-rule steps a token: transitions of rank n, for state tracking"
    source = "https://arxiv.org/abs/2502.10297"
    color = "#8c4a1f"
    ops = ("delta_rule", "short_convolution", "rms_norm", "swiglu")
    Config = DeltaProductConfig
    config: DeltaProductConfig

    def __init__(self, config: DeltaProductConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place, config.products)
        _, H, _, V = self.shape
        if config.decay:
            self.a = projection(d_model, H)
            self.A_log = nn.Parameter(torch.empty(H).uniform_(1e-2, 16).log())
            self.dt_bias = nn.Parameter(step_bias(H))
        self.gate = projection(d_model, H * V) if config.gate else None

    @classmethod
    def cost(cls, config: DeltaProductConfig, d_model: int) -> Cost:
        G, H, K, V = config.shape(d_model)
        n, rule = config.products, ops.delta_rule_cost(H, G, K, V)
        cost = cls.base_cost(config, d_model, n) + Cost.work(
            prefill=lambda T: n * rule.prefill_flops(n * T), decode=lambda _: n * rule.prefill_flops(n)
        )
        if config.decay:
            cost = cost + Cost.linear(d_model, H) + Cost.weights(2 * H)
        return cost + Cost.linear(d_model, H * V) if config.gate else cost

    def recur(
        self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, kv: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        n = self.config.products
        k, v, beta = (x.unflatten(2, (n, -1)).flatten(1, 2) for x in (k, v, beta))  # B T nH . to B Tn H .
        if log_decay is not None:  # the state fades before the first step of a token
            log_decay = F.pad(log_decay.unsqueeze(2), (0, 0, 0, n - 1)).flatten(1, 2)
        q = F.pad(q.unsqueeze(2), (0, 0, 0, 0, n - 1, 0)).flatten(1, 2)  # and is read after the last
        y, kv = ops.delta_rule(q, k, v, beta, log_decay, initial_state=kv)
        return y[:, n - 1 :: n], kv

    def log_decay(self, x: Tensor) -> Tensor | None:  # B T H
        if not self.config.decay:
            return None
        wide = torch.promote_types(x.dtype, torch.float32)
        return -self.A_log.to(wide).exp() * F.softplus(self.a(x).to(wide) + self.dt_bias.to(wide))

    def gated(self, x: Tensor, y: Tensor) -> Tensor:  # y: B T H V
        return y if self.gate is None else ops.swiglu(self.gate(x).view_as(y), y)

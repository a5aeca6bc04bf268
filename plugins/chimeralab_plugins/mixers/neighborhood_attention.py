"""Softmax attention over the nearest tokens on a line or on a grid."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, ops
from chimeralab_plugins.attention_heads import AttentionHeads, HeadsConfig


class NeighborhoodAttentionConfig(HeadsConfig):
    window: int = Field(
        7,
        ge=1,
        description="Tokens that a token sees, itself in their middle, or a square's side; shifted inwards at the ends",
    )
    columns: int | None = Field(
        None, ge=1, description="The tokens are a grid of so many columns, row by row, and a window is a square"
    )

    @property
    def grid_columns(self) -> int | None:
        return self.columns

    @property
    def across(self) -> tuple[int, ...]:
        """Lengths of the grid's axes after the first; none on a line."""
        return () if self.columns is None else (self.columns,)

    @property
    def windows(self) -> tuple[int, ...]:
        """The window along each axis."""
        return (self.window,) * (1 + len(self.across))

    mixer: ClassVar[str] = "neighborhood_attention"


class NeighborhoodAttention(AttentionHeads):
    """`attention` over the W tokens around each: y_t = W_o Σ_{s ∈ N(t)} softmax_s(q_t · k_s / √K) v_s,

    N(t) = {a, …, a + W − 1} with a = clamp(t − ⌊W / 2⌋, 0, T − W): at the ends the window moves inwards, so that each
    token sees W others whatever its place; a shorter sequence is seen whole. Not causal. Work grows as T · W.

    With `columns` the same holds along the rows and along the columns of a grid: a token sees a square of W · W. A last
    row that is not full is filled up with keys and values of zero. Rotary positions count tokens, row by row.

    Source: Neighborhood Attention Transformer (arXiv 2204.07143), section 3.1; with QK-norm it is HDiT's (arXiv
    2401.11605).
    """

    name = "neighborhood_attention"
    title = "Neighbourhood attention"
    family = "Attention"
    summary = "Softmax attention over the nearest tokens, on a line or on a grid: linear in the length"
    source = "https://arxiv.org/abs/2204.07143"
    color = "#7b2cbf"
    views = frozenset({"parallel"})
    causal = False
    ops = ("neighborhood_attention", "rotary", "rms_norm")
    Config = NeighborhoodAttentionConfig
    config: NeighborhoodAttentionConfig

    @classmethod
    def cost(cls, config: NeighborhoodAttentionConfig, d_model: int) -> Cost:
        heads, _, head_dim = config.shape(d_model)
        cost = ops.neighborhood_attention_cost(heads, head_dim, head_dim, config.windows, config.across)
        # Nothing is carried: a step is a sequence of one token.
        return cls.heads_cost(config, d_model) + Cost.work(cost.prefill, lambda _: cost.prefill_flops(1))

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:  # x: B T D
        T, across = x.shape[1], self.config.across
        grid = (-(-T // math.prod(across)), *across)
        missing = math.prod(grid) - T
        q, k, v = (nn.functional.pad(each, (0, 0, 0, 0, 0, missing)) for each in self.project(x, 0))
        y = ops.neighborhood_attention(q, k, v, grid=grid, window=self.config.windows, scale=self.config.scale)
        return self.output(x, y[:, :T].flatten(-2)), None

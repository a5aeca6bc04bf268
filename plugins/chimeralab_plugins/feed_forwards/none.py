"""No feed-forward: a layer that is its mixer alone."""

from __future__ import annotations

from torch import Tensor

from chimeralab import Cost, FeedForward, FeedForwardConfig, State


class NoFeedForward(FeedForward):
    """y = 0: the residual stream passes unchanged. Stacks see `null` and leave the branch out."""

    name = "none"
    title = "None"
    summary = "The layer is its mixer alone, as in Mamba"
    source = "https://arxiv.org/abs/2312.00752"
    color = "#9aa0a6"
    null = True
    Config = FeedForwardConfig

    @classmethod
    def cost(cls, config: FeedForwardConfig, d_model: int) -> Cost:
        return Cost()

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:  # x: B T D
        return 0 * x, state  # keeps its gradient, zero

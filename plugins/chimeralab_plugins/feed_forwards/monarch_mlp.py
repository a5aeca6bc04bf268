"""Monarch MLP: a feed-forward whose matrices are products of two block-diagonal ones."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, FeedForward, FeedForwardConfig, Place, SpecError, State


class MonarchMLPConfig(FeedForwardConfig):
    ratio: float = Field(4.0, gt=0, le=64, description="Width inside, as a multiple of the model's")
    blocks: int = Field(4, ge=1, le=256, description="Diagonal blocks of each factor of a matrix")
    bias: bool = Field(True, description="Biases after the two Monarch matrices")

    def width(self, d_model: int) -> int:
        return max(1, round(self.ratio * d_model))

    def check(self, d_model: int) -> None:
        for what, width in (("width", d_model), ("inner width", self.width(d_model))):
            if width % self.blocks:
                raise SpecError(
                    f"blocks {self.blocks} do not divide the {what} {width}",
                    place="feed-forward monarch_mlp",
                    remedy="Choose blocks that divide both widths",
                )


class Monarch(nn.Module):
    """y = Pᵀ L P R x + b: R and L block-diagonal, P deals the outputs of each block out to all blocks.

    In blocks of k: x is (k, p); R maps each row to q; entry i of what comes out, read in one line of k·q, goes to block
    i mod k; L maps each block to s; the result interleaves the blocks. The inner width is the smaller of the two.
    Source: Monarch (arXiv 2204.00595), section 3.1, rectangular form of the authors' `MonarchLinear`.
    """

    def __init__(self, d_in: int, d_out: int, blocks: int, *, bias: bool, residuals: int = 1) -> None:
        super().__init__()
        p, s = d_in // blocks, d_out // blocks
        q = min(p, s)
        self.right = nn.Parameter(torch.randn(blocks, q, p) * p**-0.5)
        self.left = nn.Parameter(torch.randn(blocks, s, q) * (q * residuals) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None

    @staticmethod
    def cost(d_in: int, d_out: int, blocks: int, *, bias: bool) -> Cost:
        weights = min(d_in, d_out) * (d_in + d_out) // blocks
        return Cost.weights(weights + bias * d_out) + Cost.work(lambda _: 2.0 * weights, lambda _: 2.0 * weights)

    def forward(self, x: Tensor) -> Tensor:  # … d_in
        k = len(self.right)
        inner = torch.einsum("...kp,kqp->...kq", x.unflatten(-1, (k, -1)), self.right)
        dealt = inner.flatten(-2).unflatten(-1, (-1, k))  # … q k
        y = torch.einsum("...qk,ksq->...sk", dealt, self.left).flatten(-2)
        return y if self.bias is None else y + self.bias


class MonarchMLP(FeedForward):
    """y = M₂ gelu(M₁ x), with Monarch matrices: 1/k of the dense weights in k blocks, twice over, and every input
    reaches every output once a block is as wide as there are blocks.

    Source: Monarch Mixer (arXiv 2310.12109), section 3: the mixer along the model dimension.
    """

    name = "monarch_mlp"
    title = "Monarch MLP"
    summary = "An MLP with structured matrices: a fraction of the weights of dense ones"
    source = "https://arxiv.org/abs/2310.12109"
    color = "#a8763e"
    Config = MonarchMLPConfig

    def __init__(self, config: MonarchMLPConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        hidden = config.width(d_model)
        self.up = Monarch(d_model, hidden, config.blocks, bias=config.bias)
        self.down = Monarch(hidden, d_model, config.blocks, bias=config.bias, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: MonarchMLPConfig, d_model: int) -> Cost:
        hidden = config.width(d_model)
        return Monarch.cost(d_model, hidden, config.blocks, bias=config.bias) + Monarch.cost(
            hidden, d_model, config.blocks, bias=config.bias
        )

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:  # x: B T D
        return self.down(F.gelu(self.up(x), approximate="tanh")), state

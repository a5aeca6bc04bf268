"""MLP: y = W_out gelu(W_in x)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from chimeralab import Cost, FeedForward, FeedForwardConfig, Place, State
from chimeralab_plugins.projection import projection


class MLPConfig(FeedForwardConfig):
    ratio: float = Field(4.0, gt=0, le=64, description="Width inside, as a multiple of the model's")
    bias: bool = Field(True, description="Biases in the two projections")

    def width(self, d_model: int) -> int:
        return max(1, round(self.ratio * d_model))


class MLP(FeedForward):
    """The feed-forward of GPT-2, y = W_out gelu(W_in x), with the tanh form of GELU.

    Source: Language Models are Unsupervised Multitask Learners (2019); GELU: arXiv 1606.08415.
    """

    name = "mlp"
    title = "MLP"
    summary = "Two projections with GELU between, as in GPT-2"
    source = "https://arxiv.org/abs/1606.08415"
    color = "#b5894e"
    Config = MLPConfig

    def __init__(self, config: MLPConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        hidden = config.width(d_model)
        self.up = projection(d_model, hidden, bias=config.bias)
        self.down = projection(hidden, d_model, bias=config.bias, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: MLPConfig, d_model: int) -> Cost:
        hidden = config.width(d_model)
        return Cost.linear(d_model, hidden, bias=config.bias) + Cost.linear(hidden, d_model, bias=config.bias)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:  # x: B T D
        return self.down(F.gelu(self.up(x), approximate="tanh")), state

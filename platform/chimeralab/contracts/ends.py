"""Where a stack meets the data of a task: what goes into its first layer, what it is told, what reads its last one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypedDict

from torch import Tensor, nn

from chimeralab.contracts.cost import Cost
from chimeralab.contracts.layer import ParamGroup


class Told(NamedTuple):
    """What is known of each sequence of a batch, and no token says."""

    levels: Tensor  # B, float32, from 0 (no noise) to 1 (noise alone)
    classes: Tensor | None = None  # B, int64; a class that is not told is the number of classes


class Readout(nn.Module):
    """Reads a stack's normed last hidden states for a task that does not ask for a score of each token id."""

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:  # h: B T D
        """What `Task.measure` is given."""

    def loss(self, h: Tensor, targets: Tensor) -> Tensor:  # h: B T D
        """What training lowers. Here: mean cross-entropy in nats of the counted targets, of scores `(..., C)`."""
        scores = self(h).float().flatten(0, -2)
        wanted = targets.flatten()
        total = nn.functional.cross_entropy(scores, wanted, reduction="sum")
        return total / (wanted >= 0).sum().clamp(min=1)

    @abstractmethod
    def cost(self) -> Cost:
        """Parameters, and FLOPs per token of the sequence."""

    def param_groups(self) -> list[ParamGroup]:
        """Default: matrices decay, vectors do not."""
        matrices = [parameter for parameter in self.parameters() if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.parameters() if parameter.ndim < 2]
        return [ParamGroup(matrices), ParamGroup(vectors, weight_decay=False)]


class Classifier(Readout):
    """One score a class for a whole sequence: W mean_t h_t + b. Its targets are (B,), int64."""

    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(d_model, classes)
        nn.init.normal_(self.scores.weight, std=0.02)
        nn.init.zeros_(self.scores.bias)

    def forward(self, h: Tensor) -> Tensor:  # B C
        return self.scores(h.mean(1))

    def cost(self) -> Cost:
        return Cost.linear(self.scores.in_features, self.scores.out_features, bias=True).once()


class Regression(Readout):
    """F numbers for each token, W h_t + b, zero at first; the loss is their mean squared error. Targets: (B, T, F)."""

    def __init__(self, d_model: int, features: int) -> None:
        super().__init__()
        self.numbers = nn.Linear(d_model, features)
        for parameter in self.numbers.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:  # B T F
        return self.numbers(h)

    def loss(self, h: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(self(h).float(), targets)

    def cost(self) -> Cost:
        return Cost.linear(self.numbers.in_features, self.numbers.out_features, bias=True)


class Ends(TypedDict):
    """What a task asks of both ends of a stack: arguments of building and costing it."""

    vocab_size: int
    input_features: int | None
    classes: int
    readout: Callable[[int], Readout] | None


def embedding(features: int, d_model: int) -> nn.Linear:
    """A map from the numbers at each place, as of patches in ViT and DiT, which draw it the same way."""
    linear = nn.Linear(features, d_model)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear

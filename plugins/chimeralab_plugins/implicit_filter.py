"""Hyena's filters: a small network from the position of a tap to its value."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost
from chimeralab_plugins.state_space.parameters import full_precision

FAST, SLOW, TARGET = 0.3, 1.5, 0.01
"""Windows fall to TARGET within these fractions of the filter's length: the first channel slowly, the last fast."""


class ImplicitFilter(nn.Module):
    """k_d(t) = w_d(t) · MLP(z(t))_d, with sines as activations and an exponential window.

    t runs from 0 to 1 over `length` taps. z(t) = (t, cos, -sin of 2π f t for the bands f); each hidden layer is
    sin(ω ⊙ (W z + b)), with one learned ω for all. w_d(t) = exp(-|δ_d| t), δ spread evenly between two rates.
    Neighbouring taps stand 1 / length apart: a filter much longer than the sequences starts almost constant over
    them, and learns slowly to tell their tokens apart.

    Source: Hyena (arXiv 2302.10866), appendix D.3, and `HyenaFilter` of the authors.
    """

    of_tokens = False  # its maps see positions: a shared layer's uses adapt the others

    def __init__(self, channels: int, length: int, bands: int, hidden: int, layers: int, frequency: float) -> None:
        super().__init__()
        self.channels, self.length, self.bands = channels, length, bands
        sizes = [1 + 2 * bands] + [hidden] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.omega = nn.Parameter(torch.full((hidden,), frequency))
        self.out = nn.Linear(hidden, channels, bias=False)

    @staticmethod
    def cost(channels: int, length: int, bands: int, hidden: int, layers: int) -> Cost:
        """Prefill computes as many taps as there are tokens; a decoded token computes all that it reads."""
        sizes = [1 + 2 * bands] + [hidden] * layers + [channels]
        pairs = list(pairwise(sizes))
        per_tap = 2.0 * sum(a * b for a, b in pairs)
        return Cost.weights(sum(a * b for a, b in pairs) + layers * hidden + hidden) + Cost.work(
            lambda T: per_tap * min(T, length) / T, lambda L: per_tap * min(L, length)
        )

    def taps(self, count: int, dtype: torch.dtype) -> Tensor:
        """The first `count` taps, fewer where the filter is shorter: channels L, in float32 or better."""
        device = self.omega.device
        L = min(count, self.length)
        with full_precision(self.omega):
            position = torch.arange(L, device=device, dtype=dtype).unsqueeze(1)
            t = position / max(1, self.length - 1)
            f = torch.linspace(1e-4, self.bands - 1, self.bands, device=device, dtype=dtype)
            angle = 2 * math.pi * f * position / self.length  # L bands
            z = torch.cat([t, angle.cos(), -angle.sin()], 1)
            for layer in self.hidden:
                z = torch.sin(self.omega.to(dtype) * F.linear(z, layer.weight.to(dtype), layer.bias.to(dtype)))
            rate = torch.linspace(1 / SLOW, 1 / FAST, self.channels, device=device, dtype=dtype) * -math.log(TARGET)
            return (F.linear(z, self.out.weight.to(dtype)) * torch.exp(-rate * t)).mT

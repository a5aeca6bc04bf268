"""Vision Mamba: one selective state space in each direction, for sequences without a before and after."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from chimeralab import Cost, Mixer, Place
from chimeralab_plugins.mixers.mamba import MambaConfig, SelectiveSSM


class VisionMamba(Mixer):
    """(x, z) = W_in ·,  y = W_out (S6→(x, z) + S6←(x, z)): two selective state spaces share their projections.

    S6← reads the sequence from its end. Not causal: for patches of an image, or any sequence that is seen whole.

    Source: Vision Mamba (arXiv 2401.09417), algorithm 1. `mamba.SelectiveSSM` has the recurrence.
    """

    name = "vision_mamba"
    title = "Vision Mamba"
    family = "State space"
    summary = "Mamba in both directions: sees the whole sequence in linear time"
    source = "https://arxiv.org/abs/2401.09417"
    color = "#48a9e6"
    views = frozenset({"chunked"})
    causal = False
    ops = ("selective_scan", "short_convolution", "rms_norm")
    Config = MambaConfig
    config: MambaConfig

    def __init__(self, config: MambaConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        inner, _ = config.widths(d_model)
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)  # rows of x, z
        self.forwards = SelectiveSSM(config, d_model)
        self.backwards = SelectiveSSM(config, d_model)
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(place.layers)

    @classmethod
    def cost(cls, config: MambaConfig, d_model: int) -> Cost:
        inner, _ = config.widths(d_model)
        return Cost.linear(d_model, 2 * inner) + 2 * SelectiveSSM.cost(config, d_model) + Cost.linear(inner, d_model)

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:  # x: B T D
        u, z = self.in_proj(x).chunk(2, -1)
        ahead, _ = self.forwards(u, z, None)
        behind, _ = self.backwards(u.flip(1), z.flip(1), None)
        return self.out_proj(ahead + behind.flip(1)), None

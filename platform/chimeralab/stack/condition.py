"""What a whole sequence is told: a level of noise and a class, as one vector that the norms of a stack listen to.

Source: adaLN-Zero of DiT (arXiv 2212.09748), and the adaptive RMS norm of the Hourglass Diffusion Transformer
(arXiv 2401.11605).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from chimeralab.contracts import Context, Cost, Told

CONDITION = "condition"
"""Key of the condition, B C, in the context of layers. Without it a layer takes a condition of zeros."""

FREQUENCIES = 256
LEVELS = 1000.0  # a level of 0 … 1 is told as one of 0 … 1000, the range that the frequencies are made for


class Condition(nn.Module):
    """c = W₂ silu(W₁ [cos ωt, sin ωt]) + table[class], where the last row of the table stands for "not told"."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.level_in = nn.Linear(FREQUENCIES, width)
        self.level_out = nn.Linear(width, width)
        self.classes = nn.Embedding(classes + 1, width)
        for weight in (self.level_in.weight, self.level_out.weight, self.classes.weight):
            nn.init.normal_(weight, std=0.02)

    @staticmethod
    def cost(width: int, classes: int) -> Cost:
        work = Cost.linear(FREQUENCIES, width, bias=True) + Cost.linear(width, width, bias=True)
        return work.once() + Cost.weights((classes + 1) * width)

    def forward(self, told: Told | None, batch: int) -> Tensor:  # B C
        weight = self.classes.weight
        levels = weight.new_zeros(batch) if told is None else told.levels
        classes = None if told is None else told.classes
        if classes is None:
            classes = torch.full((batch,), len(weight) - 1, device=weight.device)
        half = FREQUENCIES // 2
        wide = torch.promote_types(weight.dtype, torch.float32)
        frequencies = torch.exp(-math.log(10_000.0) / half * torch.arange(half, device=weight.device, dtype=wide))
        angles = LEVELS * levels.to(wide)[:, None] * frequencies
        waves = torch.cat((angles.cos(), angles.sin()), -1).to(weight.dtype)
        return self.level_out(nn.functional.silu(self.level_in(waves))) + self.classes(classes)


class Modulated(NamedTuple):
    """What a condition does to one branch: x + gate ⊙ f((1 + scale) ⊙ norm x + shift). None: nothing."""

    scale: Tensor | None = None  # B 1 D, or B D in a step
    shift: Tensor | None = None
    gate: Tensor | None = None

    def into(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            x = x * (1 + self.scale)
        return x if self.shift is None else x + self.shift

    def out(self, y: Tensor) -> Tensor:
        return y if self.gate is None else y * self.gate


PARTS = {"adaptive": 3, "scaled": 1}
"""Vectors that a branch is given, by the residual form: scale, shift and gate; or scale alone."""


class Modulation(nn.Module):
    """The vectors of some branches as one linear map of the condition, zero at first.

    With scales alone it is W c, as in HDiT; otherwise W silu(c) + b, as in DiT: closed gates make each layer the
    identity at first.
    """

    of_tokens = False  # no adapter goes beside it: it maps what a sequence is told

    def __init__(self, width: int, d_model: int, parts: int, branches: int = 1) -> None:
        super().__init__()
        self.parts, self.branches = parts, branches
        self.linear = nn.Linear(width, branches * parts * d_model, bias=parts > 1)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    @staticmethod
    def cost(width: int, d_model: int, parts: int, branches: int = 1) -> Cost:
        return Cost.linear(width, branches * parts * d_model, bias=parts > 1).once()

    def forward(self, context: Context, x: Tensor) -> list[Modulated]:  # x: B T D, or B D in a step
        """What each branch is given."""
        c = context.get(CONDITION)
        if c is None:
            c = x.new_zeros(x.shape[0], self.linear.in_features)
        vectors = self.linear(c if self.parts == 1 else nn.functional.silu(c))
        vectors = vectors.unsqueeze(1) if x.ndim == 3 else vectors
        found = vectors.chunk(self.branches * self.parts, -1)
        return [Modulated(*found[i : i + self.parts]) for i in range(0, len(found), self.parts)]

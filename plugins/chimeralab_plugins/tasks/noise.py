"""Diffusion: how pictures are mixed with noise, what a model is asked for, and how it draws.

With level t from 0 (the picture) to 1 (noise): x_t = α x_0 + σ ε, where α = cos(π t / 2) and σ = sin(π t / 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Asked = Literal["v", "noise"]
"""What the model gives: the noise ε, as in DDPM, or v = α ε - σ x_0 (Salimans and Ho, arXiv 2202.00512)."""

LAST = 0.999
"""The level that drawing begins at: a picture cannot be told from a guess of its noise at a level of 1."""


def mixture(levels: Tensor) -> tuple[Tensor, Tensor]:  # B -> B 1 1, twice
    """α and σ."""
    angles = (math.pi / 2 * levels)[:, None, None]
    return angles.cos(), angles.sin()


def mixed(clean: Tensor, noise: Tensor, levels: Tensor, asked: Asked) -> tuple[Tensor, Tensor]:  # B T F, B T F, B
    """What goes into the model, and what it should give."""
    alpha, sigma = mixture(levels)
    return alpha * clean + sigma * noise, noise if asked == "noise" else alpha * noise - sigma * clean


def parts(x: Tensor, given: Tensor, levels: Tensor, asked: Asked) -> tuple[Tensor, Tensor]:  # B T F, B T F, B
    """The picture and the noise that x is made of, if the model is right."""
    alpha, sigma = mixture(levels)
    if asked == "noise":
        return (x - sigma * given) / alpha, given
    return alpha * x - sigma * given, sigma * x + alpha * given


def draw(
    model: Callable[[Tensor, Tensor], Tensor], start: Tensor, steps: int, asked: Asked, *, within: float | None = 1.0
) -> Tensor:
    """DDIM (Song, Meng and Ermon, arXiv 2010.02502, equation 12 with no new noise), at levels that fall evenly.

    Args:
        model: from x (B T F) and levels (B,) to what is asked of it.
        start: noise, B T F.
        within: numbers of pictures are between minus this and this; a guess outside is moved there.
    """
    x = start
    levels = torch.linspace(LAST, 0, steps + 1, dtype=torch.float64).tolist()
    for now, after in pairwise(levels):
        here, there = (torch.full((len(x),), level, dtype=x.dtype) for level in (now, after))
        clean, noise = parts(x, model(x, here), here, asked)
        if within is not None:
            clean = clean.clamp(-within, within)
            alpha, sigma = mixture(here)
            noise = (x - alpha * clean) / sigma
        alpha, sigma = mixture(there)
        x = alpha * clean + sigma * noise
    return x

"""How far drawn pictures are from real ones: the Fréchet distance in the space of principal components."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 1024  # pictures that components are taken of


class Components:
    """The first K principal components of some pictures, of their numbers as they are: a fixed linear map."""

    def __init__(self, pictures: Tensor, count: int) -> None:  # N F
        chosen = pictures[:MOST].double()
        self.mean = chosen.mean(0)
        # N may be less than F: the vectors of whichever product is smaller are enough
        self.axes = torch.linalg.svd(chosen - self.mean, full_matrices=False).Vh[:count]  # K F

    def __call__(self, pictures: Tensor) -> Tensor:  # N F -> N K
        return (pictures.double() - self.mean) @ self.axes.T


def distance(one: Tensor, other: Tensor) -> float:  # N K, M K
    """|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), as if both were Gaussian (FID's equation 6, arXiv 1706.08500)."""
    root = _root(one.T.cov())
    shared = torch.linalg.eigvalsh(root @ other.T.cov() @ root).clamp(min=0).sqrt().sum()
    apart = (one.mean(0) - other.mean(0)).square().sum()
    return float(apart + one.T.cov().trace() + other.T.cov().trace() - 2 * shared)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

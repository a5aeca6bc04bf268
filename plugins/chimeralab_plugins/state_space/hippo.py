"""HiPPO-LegS: the state space that remembers its input as Legendre coefficients, and spectra close to it."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def legs(N: int) -> tuple[Tensor, Tensor]:
    """A (N N) and B (N) of scaled Legendre memory, in float64.

    A[n, k] = -√(2n+1) √(2k+1) below the diagonal, -(n + 1) on it, 0 above; B[n] = √(2n+1).
    Source: HiPPO (arXiv 2008.07669), theorem 2.
    """
    n = torch.arange(N, dtype=torch.float64, device="cpu")
    root = (2 * n + 1).sqrt()
    A = -torch.outer(root, root).tril(-1) - torch.diag(n + 1)
    return A, root


@lru_cache(maxsize=16)
def legs_dplr(N: int) -> tuple[Tensor, Tensor, Tensor]:
    """LegS as a diagonal plus a rank-one matrix: Λ, P, B, each N/2 in complex128; conjugates are left out.

    With P = √(n + 1/2) the matrix A + P Pᵀ = -I/2 + skew is normal; in its eigenbasis A is Λ - P P*.
    Source: S4 (arXiv 2111.00396), theorem 1.
    """
    A, B = legs(N)
    P = (torch.arange(N, dtype=torch.float64, device="cpu") + 0.5).sqrt()
    skew = A + torch.outer(P, P) + 0.5 * torch.eye(N, dtype=torch.float64, device="cpu")
    imaginary, V = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    half = slice(N // 2, N)  # ascending: the positive half
    basis = V[:, half].mH
    return torch.complex(torch.full_like(imaginary[half], -0.5), imaginary[half]), *(
        basis @ v.to(torch.complex128) for v in (P, B)
    )


def diagonal_spectrum(init: str, N: int) -> Tensor:
    """Eigenvalues, N/2 in complex128 with conjugates left out, of S4D's initialisations.

    "legs": those of LegS without its low-rank part; "lin": -1/2 + iπn; "inv": -1/2 + i (N/π)(N/(2n+1) - 1).
    Source: S4D (arXiv 2206.11893), section 4.
    """
    n = torch.arange(N // 2, dtype=torch.float64, device="cpu")
    match init:
        case "legs":
            return legs_dplr(N)[0]
        case "lin":
            imaginary = math.pi * n
        case "inv":
            imaginary = N / math.pi * (N / (2 * n + 1) - 1)
        case _:
            raise ValueError(f"unknown initialisation {init!r}")
    return torch.complex(torch.full_like(n, -0.5), imaginary)

"""Diagonal plus low rank: A = Λ - P P* for each channel, of conjugate pairs that are stored once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from chimeralab_plugins.state_space.dense import read


class DPLR(NamedTuple):
    """h' = (Λ - P P*) h + B u, y = C h, with steps Δ. M = N/2 complex numbers stand for N.

    In real numbers h is (Re, Im), N long, and A a matrix of four diagonal blocks minus 2 p pᵀ, p = (Re P, Im P):
    an inner product with a conjugate pair is twice a real part.
    """

    A: Tensor  # D M complex: Λ
    P: Tensor  # D M complex
    B: Tensor  # D M complex
    C: Tensor  # D M complex
    delta: Tensor  # D

    def readout(self) -> Tensor:
        """C in real numbers: D 1 N."""
        return torch.cat([2 * self.C.real, -2 * self.C.imag], 1).unsqueeze(1)

    def zero_order_hold(self) -> tuple[Tensor, Tensor]:
        """exp(ΔA) and ∫ exp(sA) ds B: D N N and D N. Both stand in the exponential of ((ΔA, ΔB), (0, 0))."""
        p = _real(self.P).unsqueeze(-1)
        A = _real_matrix(self.A) - 2 * p * p.mT
        upper = self.delta.view(-1, 1, 1) * torch.cat([A, _real(self.B).unsqueeze(-1)], 2)
        whole = torch.linalg.matrix_exp(torch.cat([upper, torch.zeros_like(upper[:, :1])], 1))
        return whole[:, :-1, :-1], whole[:, :-1, -1]

    def bilinear(self) -> tuple[Tensor, Tensor]:
        """(1 - ΔA/2)⁻¹ (1 + ΔA/2) and (1 - ΔA/2)⁻¹ ΔB: D N N and D N. By Sherman and Morrison: nothing is inverted."""
        R, RP, scale = self._resolvent()
        rows = _real(R.conj() * self.P).unsqueeze(1)
        inverse = _real_matrix(R) - scale.unsqueeze(-1) * _real(RP).unsqueeze(-1) * rows
        eye = torch.eye(inverse.shape[-1], dtype=inverse.dtype, device=inverse.device)
        return 2 * inverse - eye, _real(self._solve(self.delta.unsqueeze(-1) * self.B))

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The bilinear recurrence for one input u (B D), in O(N) a channel: outputs B D, next state B D N."""
        M = self.P.shape[1]
        h = torch.complex(state[..., :M], state[..., M:])
        delta = self.delta.unsqueeze(-1)
        moved = self.A * h - 2 * self.P * _dot(self.P, h)
        h = _real(self._solve(h + delta / 2 * moved + delta * self.B * u.unsqueeze(-1)))
        return read(self.readout(), h), h

    def _solve(self, v: Tensor) -> Tensor:
        """(1 - ΔA/2)⁻¹ v: … D M."""
        R, RP, scale = self._resolvent()
        return R * v - scale * RP * _dot(self.P, R * v)

    def _resolvent(self) -> tuple[Tensor, Tensor, Tensor]:
        """R = (1 - ΔΛ/2)⁻¹, R P, and Δ / (1 + Δ Re P* R P): what (1 - ΔA/2)⁻¹ is made of."""
        delta = self.delta.unsqueeze(-1)
        R = 1 / (1 - delta / 2 * self.A)
        RP = R * self.P
        return R, RP, delta / (1 + delta * _dot(self.P, RP))


def _real(z: Tensor) -> Tensor:
    """… M complex to … 2M: (Re, Im)."""
    return torch.cat([z.real, z.imag], -1)


def _real_matrix(z: Tensor) -> Tensor:
    """Multiplication by a diagonal in real numbers: D M complex to D 2M 2M."""
    re, im = torch.diag_embed(z.real), torch.diag_embed(z.imag)
    return torch.cat([torch.cat([re, -im], 2), torch.cat([im, re], 2)], 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Re a* b, kept as a last dimension of 1."""
    return (a.real * b.real + a.imag * b.imag).sum(-1, keepdim=True)

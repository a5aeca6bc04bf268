"""A diagonal state space, discretised: its kernel, its state, its single step.

Powers of A over T tokens are never held: time is cut into Q pieces of c ≈ √T tokens, A^(qc + r) = A^(qc) A^r, and
sums over the state are matrix products of the two short tables, in real numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def pieces(T: int) -> tuple[int, int]:
    """(tokens c of a piece, a power of two; pieces Q): Q c >= T."""
    c = 1 << (((T - 1).bit_length() + 1) // 2)
    return c, -(-T // c)


def discretise(A: Tensor, B: Tensor, delta: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """(log Ā, B̄), each D M complex, of a diagonal A with steps Δ (D): "zoh" or "bilinear".

    Source: S4D (arXiv 2206.11893), equation 6.
    """
    rate = A * delta.unsqueeze(-1)
    if method == "zoh":
        return rate, torch.expm1(rate) / A * B
    return torch.log(1 + rate / 2) - torch.log(1 - rate / 2), delta.unsqueeze(-1) / (1 - rate / 2) * B


class DiagonalSystem(NamedTuple):
    """h_t = exp(log_A) h_{t-1} + B u_t, y_t = 2 Re(C h_t), for each of D channels; states are pairs, B D M 2."""

    log_A: Tensor  # D M complex
    B: Tensor  # D M complex
    C: Tensor  # D M complex

    def kernel(self, T: int) -> Tensor:
        """K[t] = 2 Re(C A^t B): D T."""
        fine, coarse = self._tables(T)
        weights = coarse * (2 * self.C * self.B).unsqueeze(-1)  # D M Q
        return _real_product(weights.mT, fine).flatten(1)[:, :T]

    def response(self, state: Tensor, T: int) -> Tensor:
        """What the state adds to the next T outputs, 2 Re(C A^(t+1) h): B T D."""
        fine, coarse = self._tables(T)
        h = torch.view_as_complex(state) * (2 * self.C * self.log_A.exp())  # B D M
        weights = coarse * h.unsqueeze(-1)  # B D M Q
        y = _real_product(weights.permute(1, 0, 3, 2).flatten(1, 2), fine)  # D BQ c
        return y.unflatten(1, (len(state), -1)).flatten(2)[:, :, :T].permute(1, 2, 0)

    def last_state(self, u: Tensor, state: Tensor | None) -> Tensor:
        """The state after the inputs u (B T D): Σ_s A^(T-1-s) B u_s + A^T h."""
        T = u.shape[1]
        fine, coarse = self._tables(T)
        (c, Q), M = pieces(T), self.log_A.shape[1]
        padded = F.pad(u, (0, 0, Q * c - T, 0)).permute(2, 0, 1).unflatten(-1, (Q, c))  # D B Q c
        late = torch.cat([fine.real, fine.imag], 1).flip(-1).mT  # D c 2M
        sums = torch.bmm(padded.flatten(1, 2), late).unflatten(1, (-1, Q))  # D B Q 2M
        pieces_h = torch.complex(sums[..., :M], sums[..., M:])
        h = (pieces_h * coarse.flip(-1).mT.unsqueeze(1)).sum(2) * self.B.unsqueeze(1)  # D B M
        h = h.transpose(0, 1)
        if state is not None:
            h = h + (T * self.log_A).exp() * torch.view_as_complex(state)
        return torch.view_as_real(h.contiguous())

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One input u (B D): its output (B D) and the next state."""
        h = self.log_A.exp() * torch.view_as_complex(state) + self.B * u.unsqueeze(-1)
        pairs = torch.view_as_real(h)
        read = torch.view_as_real(2 * self.C.conj().resolve_conj()).flatten(1)  # D 2M
        return torch.einsum("bdm,dm->bd", pairs.flatten(2), read), pairs

    def _tables(self, T: int) -> tuple[Tensor, Tensor]:
        """A^r for r < c and A^(qc) for q < Q: D M c and D M Q."""
        c, Q = pieces(T)
        times = torch.arange(max(c, Q), device=self.log_A.device)
        log_A = self.log_A.unsqueeze(-1)
        return (log_A * times[:c]).exp(), (log_A * (c * times[:Q])).exp()


def _real_product(a: Tensor, b: Tensor) -> Tensor:
    """Re(a @ b) of complex D Q M and D M c."""
    return torch.bmm(torch.cat([a.real, -a.imag], 2), torch.cat([b.real, b.imag], 1))


def prefill_flops(channels: int, state: int, T: int, sequences: int = 1) -> float:
    """FLOPs per token: 2N a channel for the kernel, and 2N for the last state of each sequence that shares it."""
    c, Q = pieces(T)
    return 2.0 * channels * state * (1 + sequences) * Q * c / T

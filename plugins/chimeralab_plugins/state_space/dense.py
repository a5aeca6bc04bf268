"""A state space with a dense A for each channel, discretised: its kernel, its state, its single step.

Everything over T tokens comes from the powers A, A², A⁴, …: they double a Krylov matrix column by column. Time is cut
into Q pieces of c ≈ √T tokens, so that K[qc + r] = (C A^(qc)) (A^r B) is a product of two short Krylov matrices.
Source: LSSL (arXiv 2110.13985), appendix C, and S4 (arXiv 2111.00396), whose kernel, truncated to any T, it gives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def doublings(T: int) -> tuple[int, int]:
    """(a, b): 2^b pieces of 2^a tokens hold T, and fewer pieces do not."""
    a = ((T - 1).bit_length() + 1) // 2
    return a, ((T - 1) >> a).bit_length()


class DenseSystem(NamedTuple):
    """h_t = A h_{t-1} + B u_t, y_t = C h_t, for each of D channels with O outputs each; states are B D N."""

    powers: tuple[Tensor, ...]  # A^(2^k), each D N N, as many as T tokens need
    B: Tensor  # D N
    C: Tensor  # D O N

    @classmethod
    def of(cls, A: Tensor, B: Tensor, C: Tensor, T: int) -> DenseSystem:
        """For calls over T tokens."""
        powers = [A]
        while len(powers) < sum(doublings(T)):
            powers.append(torch.bmm(powers[-1], powers[-1]))
        return cls(tuple(powers), B, C)

    def kernel(self, T: int) -> Tensor:
        """K[t] = C A^t B: D·O T."""
        a, b = doublings(T)
        taps = torch.bmm(self._rows(a, b), self._columns(self.B.unsqueeze(-1), a))  # D QO c
        return taps.unflatten(1, (1 << b, -1)).transpose(1, 2).flatten(2).flatten(0, 1)[:, :T]

    def response(self, state: Tensor, T: int) -> Tensor:
        """What the state adds to the next T outputs, C A^(t+1) h: B T D·O."""
        a, b = doublings(T)
        first = torch.bmm(self.powers[0], state.permute(1, 2, 0))  # D N B
        y = torch.bmm(self._rows(a, b), self._columns(first, a))  # D QO cB
        y = y.unflatten(2, (1 << a, -1)).unflatten(1, (1 << b, -1))  # D Q O c B
        return y.permute(4, 1, 3, 0, 2).flatten(3).flatten(1, 2)[:, :T]

    def last_state(self, u: Tensor, state: Tensor | None) -> Tensor:
        """The state after the inputs u (B T D): Σ_s A^(T-1-s) B u_s + A^T h."""
        T = u.shape[1]
        a, b = doublings(T)
        padded = F.pad(u, (0, 0, (1 << (a + b)) - T, 0)).permute(2, 0, 1).unflatten(-1, (1 << b, 1 << a))  # D B Q c
        late = self._columns(self.B.unsqueeze(-1), a).flip(-1).mT  # D c N
        h = torch.bmm(padded.flatten(1, 2), late).unflatten(1, (-1, 1 << b))  # D B Q N
        for power in self.powers[a : a + b]:  # two neighbours become one
            earlier = torch.bmm(h[:, :, 0::2].flatten(1, 2), power.mT).view_as(h[:, :, 1::2])
            h = earlier + h[:, :, 1::2]
        h = h.squeeze(2).transpose(0, 1)
        return h if state is None else h + self._advance(state, T)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One input u (B D): its outputs (B D·O) and the next state."""
        h = self._advance(state, 1) + self.B * u.unsqueeze(-1)
        return read(self.C, h), h

    def _advance(self, state: Tensor, T: int) -> Tensor:
        """A^T h: B D N."""
        h, left = state.transpose(0, 1), T
        for k in reversed(range(len(self.powers))):
            while left >= 1 << k:
                h, left = torch.bmm(h, self.powers[k].mT), left - (1 << k)
        return h.transpose(0, 1)

    def _rows(self, a: int, b: int) -> Tensor:
        """C A^(qc) for the 2^b pieces q of c = 2^a tokens: D QO N."""
        rows = self.C
        for power in self.powers[a : a + b]:
            rows = torch.cat([rows, torch.bmm(rows, power)], 1)
        return rows

    def _columns(self, first: Tensor, a: int) -> Tensor:
        """first, A first, A² first, … side by side: D N c·k from D N k."""
        columns = first
        for power in self.powers[:a]:
            columns = torch.cat([columns, torch.bmm(power, columns)], 2)
        return columns


def read(C: Tensor, h: Tensor) -> Tensor:
    """C h for every channel: D O N and B D N to B D·O."""
    return torch.bmm(h.transpose(0, 1), C.mT).transpose(0, 1).flatten(1)


def prefill_flops(channels: int, state: int, outputs: int, T: int) -> float:
    """FLOPs per token of the kernel and the last state: squarings of A, Krylov rows and columns, products."""
    a, b = doublings(T)
    c, Q, N = 1 << a, 1 << b, state
    squarings = max(a + b - 1, 0) * 2.0 * N**3
    kernel = 2.0 * N * N * (c - 1 + outputs * (Q - 1)) + 2.0 * N * outputs * Q * c
    last = 2.0 * N * N * (c - 1 + Q - 1) + 2.0 * N * Q * c
    return channels * (squarings + kernel + last) / T

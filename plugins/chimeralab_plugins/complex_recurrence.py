"""What LRU and S5 have in common: one complex diagonal recurrence between two dense maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Mixer, Place, ops
from chimeralab_plugins.projection import projection


class ComplexState(NamedTuple):
    h: Tensor  # B M 2: complex numbers as pairs, float32 or better


class ComplexRecurrence(Mixer):
    """h_t = λ ⊙ h_{t-1} + s ⊙ B x_t,  y_t = mix(gelu(Re(C h_t) + D ⊙ x_t)), with M complex states.

    B and C are kept as the real matrices by which they act on pairs (re, im). A subclass gives λ, s and `mix`.
    """

    views = frozenset({"parallel", "recurrent"})
    ops = ("diagonal_scan",)
    config: Any

    def __init__(self, config: Any, d_model: int, place: Place, states: int) -> None:
        super().__init__(config, d_model, place)
        self.states = states  # M
        self.B = projection(d_model, 2 * states)
        self.C = projection(2 * states, d_model)
        self.D = nn.Parameter(torch.randn(d_model))

    def dynamics(self, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        """(log λ: M, complex; s: M) in the precision `wide`."""
        raise NotImplementedError

    def mix(self, y: Tensor) -> Tensor:  # B T D
        raise NotImplementedError

    @classmethod
    def core_cost(cls, states: int, d_model: int) -> Cost:
        """Of the recurrence and the maps around it, without λ, s and `mix`."""
        return (
            Cost.linear(d_model, 2 * states)
            + ops.diagonal_scan_cost(states, complex_valued=True)
            + Cost.linear(2 * states, d_model)
            + Cost.weights(d_model)
            + Cost.state(lambda _: 2 * states, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> ComplexState:
        wide = torch.promote_types(dtype, torch.float32)
        return ComplexState(torch.zeros(batch, self.states, 2, device=device, dtype=wide))

    def forward(self, x: Tensor, state: ComplexState | None = None) -> tuple[Tensor, ComplexState]:  # x: B T D
        wide = torch.promote_types(x.dtype, torch.float32)
        log_decay, scale = self.dynamics(wide)
        entering = self.B(x).to(wide).unflatten(-1, (self.states, 2))
        before = torch.view_as_complex(state.h) if state else None
        h, last = ops.diagonal_scan(scale * torch.view_as_complex(entering), log_decay, initial_state=before)
        y = self.C(torch.view_as_real(h).flatten(-2).to(x.dtype)) + self.D * x
        return self.mix(F.gelu(y.to(x.dtype))), ComplexState(torch.view_as_real(last))

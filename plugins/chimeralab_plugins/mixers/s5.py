"""S5: one state space with many inputs and outputs, in place of one for each channel."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, MixerConfig, ParamGroup, Place, SpecError
from chimeralab_plugins.complex_recurrence import ComplexRecurrence
from chimeralab_plugins.projection import projection
from chimeralab_plugins.state_space.hippo import diagonal_spectrum
from chimeralab_plugins.state_space.parameters import groups_with_own_rate, log_steps


class S5Config(MixerConfig):
    d_state: int | None = Field(None, ge=2, description="State P in real numbers; empty: the model's width")
    blocks: int = Field(1, ge=1, description="Blocks J of the state, each started as a HiPPO-LegS of its own")
    dt_min: float = Field(0.001, gt=0, le=1, description="Smallest step Δ at the start")
    dt_max: float = Field(0.1, gt=0, le=1, description="Largest step Δ at the start")
    lr_scale: float = Field(0.25, gt=0, le=1, description="Learning rate of Λ, B and Δ, as a multiple of the run's")

    def pairs(self, d_model: int) -> int:
        """Complex states; their conjugates are not held."""
        return (self.d_state or d_model) // 2

    def check(self, d_model: int) -> None:
        state = self.d_state or d_model
        if state % (2 * self.blocks):
            raise SpecError(
                f"{self.blocks} blocks do not cut a state of {state} into even parts",
                place="mixer s5",
                remedy=f"Choose a d_state that {2 * self.blocks} divides",
            )
        if self.dt_min > self.dt_max:
            raise SpecError(
                f"dt_min {self.dt_min} exceeds dt_max {self.dt_max}",
                place="mixer s5",
                remedy="Choose dt_min below dt_max",
            )


class S5(ComplexRecurrence):
    """h_t = exp(ΛΔ) ⊙ h_{t-1} + (exp(ΛΔ) − 1)/Λ ⊙ B x_t,  y_t = 2 Re(C h_t) + D ⊙ x_t,  out = g ⊙ σ(W g), g = gelu(y).

    Λ starts at the spectrum of HiPPO-LegS without its low-rank part, one step Δ for each state; zero-order hold.
    The real part of Λ is −exp(·), so that it stays negative. The authors turn random B and C into the eigenbasis, which
    is unitary: normal numbers stay normal numbers, and they are drawn there at once.

    Source: S5 (arXiv 2208.04933), section 3 and appendix B.
    """

    name = "s5"
    title = "S5"
    family = "State space"
    summary = "One multi-input state space from HiPPO, diagonal, scanned: every channel shares its memory"
    source = "https://arxiv.org/abs/2208.04933"
    color = "#2a9d8f"
    Config = S5Config
    config: S5Config

    def __init__(self, config: S5Config, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        M = config.pairs(d_model)
        super().__init__(config, d_model, place, M)
        with torch.no_grad():  # each part 1/√(2D); each part of C 1/√P, and twice that for the conjugates
            self.B.weight /= math.sqrt(2)
            self.C.weight *= 2
        spectrum = diagonal_spectrum("legs", 2 * M // config.blocks).repeat(config.blocks)
        self.log_rate = nn.Parameter(_placed((-spectrum.real).log()))
        self.frequency = nn.Parameter(_placed(spectrum.imag))
        self.log_dt = log_steps(M, config.dt_min, config.dt_max)
        self.gate = projection(d_model, d_model, bias=True)

    @classmethod
    def cost(cls, config: S5Config, d_model: int) -> Cost:
        M = config.pairs(d_model)
        return cls.core_cost(M, d_model) + Cost.weights(3 * M) + Cost.linear(d_model, d_model, bias=True)

    def param_groups(self) -> list[ParamGroup]:
        own = [self.log_rate, self.frequency, self.log_dt, self.B.weight]
        return groups_with_own_rate(self, own, self.config.lr_scale)

    def dynamics(self, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        eigenvalues = torch.complex(-self.log_rate.to(wide).exp(), self.frequency.to(wide))
        log_decay = eigenvalues * self.log_dt.to(wide).exp()
        return log_decay, torch.expm1(log_decay) / eigenvalues

    def mix(self, y: Tensor) -> Tensor:
        return y * torch.sigmoid(self.gate(y))


def _placed(values: Tensor) -> Tensor:
    """On the device and in the dtype that new parameters take."""
    return values.to(torch.get_default_device(), torch.get_default_dtype())

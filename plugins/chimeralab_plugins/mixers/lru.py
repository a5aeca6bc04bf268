"""LRU: a complex diagonal linear recurrence, stable by its parametrisation."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, MixerConfig, ParamGroup, Place, SpecError
from chimeralab_plugins.complex_recurrence import ComplexRecurrence
from chimeralab_plugins.projection import projection
from chimeralab_plugins.state_space.parameters import groups_with_own_rate


class LRUConfig(MixerConfig):
    d_state: int | None = Field(None, ge=1, description="Complex states; empty: the model's width")
    r_min: float = Field(0.0, ge=0, lt=1, description="Inner radius of the ring in which eigenvalues start")
    r_max: float = Field(1.0, gt=0, le=1, description="Outer radius of the ring")
    max_phase: float = Field(2 * math.pi, gt=0, le=2 * math.pi, description="Angle that eigenvalues start below")
    lr_scale: float = Field(0.5, gt=0, le=1, description="Learning rate of λ and γ, as a multiple of the run's")

    def check(self, d_model: int) -> None:
        if self.r_min >= self.r_max:
            raise SpecError(
                f"r_min {self.r_min} is not below r_max {self.r_max}",
                place="mixer lru",
                remedy="Choose a ring of some breadth",
            )


class LRU(ComplexRecurrence):
    """h_t = λ ⊙ h_{t-1} + γ ⊙ B x_t,  y_t = GLU(W gelu(Re(C h_t) + D ⊙ x_t) + b),

    with λ = exp(−exp(ν) + i exp(θ)), which cannot leave the unit disc, and γ = exp(·), started at √(1 − |λ|²) so that
    states keep the size of their inputs.

    Source: Resurrecting recurrent neural networks for long sequences (arXiv 2303.06349), section 3, code of appendix A.
    """

    name = "lru"
    title = "LRU"
    family = "Recurrent"
    summary = "Complex diagonal recurrence with eigenvalues on a ring: long memory, nothing selective"
    source = "https://arxiv.org/abs/2303.06349"
    color = "#3d348b"
    Config = LRUConfig
    config: LRUConfig

    def __init__(self, config: LRUConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        M = config.d_state or d_model
        super().__init__(config, d_model, place, M)
        with torch.no_grad():  # each part as wide as the authors', 1/√(2D) and 1/√M
            self.B.weight /= math.sqrt(2)
            self.C.weight *= math.sqrt(2)
        area = torch.rand(M).clamp(min=1e-6) * (config.r_max**2 - config.r_min**2) + config.r_min**2
        self.nu_log = nn.Parameter(torch.log(-0.5 * torch.log(area)))
        self.theta_log = nn.Parameter(torch.log(config.max_phase * torch.rand(M).clamp(min=1e-6)))
        self.gamma_log = nn.Parameter(0.5 * torch.log1p(-area))
        self.out_proj = projection(d_model, 2 * d_model, bias=True, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: LRUConfig, d_model: int) -> Cost:
        M = config.d_state or d_model
        return cls.core_cost(M, d_model) + Cost.weights(3 * M) + Cost.linear(d_model, 2 * d_model, bias=True)

    def param_groups(self) -> list[ParamGroup]:
        return groups_with_own_rate(self, [self.nu_log, self.theta_log, self.gamma_log], self.config.lr_scale)

    def dynamics(self, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        log_decay = torch.complex(-self.nu_log.to(wide).exp(), self.theta_log.to(wide).exp())
        return log_decay, self.gamma_log.to(wide).exp()

    def mix(self, y: Tensor) -> Tensor:
        return F.glu(self.out_proj(y), -1)

"""S4D: a diagonal state space for each channel, trained as a convolution and decoded as a recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Place
from chimeralab_plugins.state_space.block import StateSpaceConfig, StateSpaceMixer
from chimeralab_plugins.state_space.diagonal import DiagonalSystem, discretise, prefill_flops
from chimeralab_plugins.state_space.hippo import diagonal_spectrum
from chimeralab_plugins.state_space.parameters import as_complex, complex_normal, parameter


class S4DConfig(StateSpaceConfig):
    init: Literal["legs", "lin", "inv"] = Field("legs", description="Where A starts: S4D-LegS, S4D-Lin or S4D-Inv")
    discretisation: Literal["zoh", "bilinear"] = Field("zoh", description="Zero-order hold, or bilinear")


class S4D(StateSpaceMixer):
    """h_t = Ā h_{t-1} + B̄ u_t,  s_t = 2 Re(C h_t) + D u_t,  y = GLU(W gelu(s) + b), with a diagonal complex A:

        zero-order hold  Ā = exp(ΔA), B̄ = (Ā - 1) A⁻¹ B;   bilinear  Ā = (1 + ΔA/2)/(1 - ΔA/2), B̄ = Δ/(1 - ΔA/2) B.

    Of each conjugate pair one is kept: N/2 complex numbers. Re A = -exp(log_A) stays negative.

    Source: On the Parameterization and Initialization of Diagonal State Space Models (arXiv 2206.11893).
    """

    name = "s4d"
    title = "S4D"
    family = "State space"
    summary = "Diagonal state space: a long convolution to train, N numbers a channel to decode"
    source = "https://arxiv.org/abs/2206.11893"
    color = "#5c80bc"
    Config = S4DConfig

    def __init__(self, config: S4DConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        A = diagonal_spectrum(config.init, config.d_state)
        self.log_A = parameter((-A.real).log(), d_model)  # D M
        self.A_imag = parameter(A.imag, d_model)  # D M
        self.B = parameter(torch.ones_like(A), d_model)  # D M 2
        self.C = complex_normal(d_model, config.d_state // 2)  # D M 2

    @classmethod
    def cost(cls, config: S4DConfig, d_model: int) -> Cost:
        N = config.d_state
        return (
            cls.block_cost(config, d_model)
            + Cost.weights(3 * d_model * N)
            + Cost.work(lambda T: prefill_flops(d_model, N, T), lambda _: 2.0 * d_model * N)
        )

    def dynamics(self) -> Sequence[nn.Parameter]:
        return self.log_A, self.A_imag, self.B

    def state_shape(self) -> tuple[int, ...]:
        return self.config.d_state // 2, 2

    def system(self, dtype: torch.dtype, T: int) -> DiagonalSystem:
        A = torch.complex(-self.log_A.to(dtype).exp(), self.A_imag.to(dtype))
        delta: Tensor = self.log_dt.to(dtype).exp()
        B, C = as_complex(self.B, dtype), as_complex(self.C, dtype)
        return DiagonalSystem(*discretise(A, B, delta, self.config.discretisation), C)

"""S4: a structured state space for each channel that starts as HiPPO-LegS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from chimeralab import Cost, Place
from chimeralab_plugins.state_space.block import Recurrence, StateSpaceConfig, StateSpaceMixer
from chimeralab_plugins.state_space.dense import DenseSystem, prefill_flops
from chimeralab_plugins.state_space.dplr import DPLR
from chimeralab_plugins.state_space.hippo import legs_dplr
from chimeralab_plugins.state_space.parameters import as_complex, complex_normal, parameter


class S4Config(StateSpaceConfig):
    discretisation: Literal["bilinear", "zoh"] = Field("bilinear", description="Bilinear, or zero-order hold")


class S4(StateSpaceMixer):
    """h_t = Ā h_{t-1} + B̄ u_t,  s_t = C h_t + D u_t,  y = GLU(W gelu(s) + b), with A = Λ - P P*:

        bilinear  Ā = (1 - ΔA/2)⁻¹ (1 + ΔA/2), B̄ = (1 - ΔA/2)⁻¹ ΔB;   zero-order hold  Ā = exp(ΔA), B̄ = A⁻¹ (Ā - 1) B.

    Of each conjugate pair one is kept. Decoding takes O(N) a channel with the bilinear form, O(N³) with zero-order
    hold (an exponential of a matrix). The kernel comes from powers of Ā, which the state at the end of a sequence
    needs anyway; the paper's Cauchy kernel gives the same numbers, for one fixed length.

    Source: Efficiently Modeling Long Sequences with Structured State Spaces (arXiv 2111.00396); P P* with a minus,
    so that A is stable whatever P, from SaShiMi (arXiv 2202.09729).
    """

    name = "s4"
    title = "S4"
    family = "State space"
    summary = "State space that starts as HiPPO-LegS: long memory by convolution, N numbers a channel to decode"
    source = "https://arxiv.org/abs/2111.00396"
    color = "#33508a"
    Config = S4Config

    def __init__(self, config: S4Config, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        A, P, B = legs_dplr(config.d_state)
        self.log_A = parameter((-A.real).log(), d_model)  # D M
        self.A_imag = parameter(A.imag, d_model)  # D M
        self.P = parameter(P, d_model)  # D M 2
        self.B = parameter(B, d_model)  # D M 2
        self.C = complex_normal(d_model, config.d_state // 2)  # D M 2

    @classmethod
    def cost(cls, config: S4Config, d_model: int) -> Cost:
        N = config.d_state
        advance = 2.0 * d_model * N * N if config.discretisation == "zoh" else 0.0
        return (
            cls.block_cost(config, d_model)
            + Cost.weights(4 * d_model * N)
            + Cost.work(lambda T: prefill_flops(d_model, N, 1, T), lambda _: advance + 2.0 * d_model * N)
        )

    def dynamics(self) -> Sequence[nn.Parameter]:
        return self.log_A, self.A_imag, self.P, self.B

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.d_state,)

    def system(self, dtype: torch.dtype, T: int) -> DenseSystem:
        space = self._space(dtype)
        A, B = space.bilinear() if self.config.discretisation == "bilinear" else space.zero_order_hold()
        return DenseSystem.of(A, B, space.readout(), T)

    def recurrence(self, dtype: torch.dtype) -> Recurrence:
        return self._space(dtype) if self.config.discretisation == "bilinear" else self.system(dtype, 1)

    def _space(self, dtype: torch.dtype) -> DPLR:
        A = torch.complex(-self.log_A.to(dtype).exp(), self.A_imag.to(dtype))
        P, B, C = (as_complex(pairs, dtype) for pairs in (self.P, self.B, self.C))
        return DPLR(A, P, B, C, self.log_dt.to(dtype).exp())

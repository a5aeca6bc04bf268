"""LSSL: a dense state space that all channels share, each on its own time scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Place
from chimeralab_plugins.state_space.block import StateSpaceConfig, StateSpaceMixer
from chimeralab_plugins.state_space.dense import DenseSystem, prefill_flops
from chimeralab_plugins.state_space.hippo import legs
from chimeralab_plugins.state_space.parameters import parameter


class LSSLConfig(StateSpaceConfig):
    outputs: int = Field(1, ge=1, le=64, description="Outputs of each channel, mixed by the projection")


class LSSL(StateSpaceMixer):
    """h_t = Ā h_{t-1} + B̄ u_t,  s_t = C h_t + D u_t,  y = W gelu(s) + b, discretised bilinearly from a dense A:

        Ā = (1 - ΔA/2)⁻¹ (1 + ΔA/2),  B̄ = (1 - ΔA/2)⁻¹ ΔB.

    A and B start as HiPPO-LegS and are shared; a channel has its own Δ and C. Solving for Ā takes O(N³) a channel,
    which the count of FLOPs leaves out, at every call and every decoded token.

    Source: Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers
    (arXiv 2110.13985), section 3 and appendix C; A is learned without the structure of its appendix D.
    """

    name = "lssl"
    title = "LSSL"
    family = "State space"
    summary = "The first of its kind: a dense HiPPO state space, O(N²) to decode"
    source = "https://arxiv.org/abs/2110.13985"
    color = "#7d8fb3"
    gated = False
    Config = LSSLConfig

    def __init__(self, config: LSSLConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place, config.outputs)
        A, B = legs(config.d_state)
        self.A = parameter(A, 1)  # 1 N N
        self.B = parameter(B, 1)  # 1 N
        self.C = nn.Parameter(torch.randn(d_model, config.outputs, config.d_state) / config.d_state**0.5)

    @classmethod
    def cost(cls, config: LSSLConfig, d_model: int) -> Cost:
        N, outputs = config.d_state, config.outputs
        decode = 2.0 * d_model * N * (N + outputs)
        return (
            cls.block_cost(config, d_model, outputs)
            + Cost.weights(N * N + N + d_model * outputs * N)
            + Cost.work(lambda T: prefill_flops(d_model, N, outputs, T), lambda _: decode)
        )

    def dynamics(self) -> Sequence[nn.Parameter]:
        return self.A, self.B

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.d_state,)

    def system(self, dtype: torch.dtype, T: int) -> DenseSystem:
        step: Tensor = self.log_dt.to(dtype).exp().view(-1, 1, 1)
        half = step / 2 * self.A.to(dtype)  # D N N
        eye = torch.eye(half.shape[-1], dtype=dtype, device=half.device)
        both = torch.cat([eye + half, step * self.B.to(dtype).unsqueeze(-1)], 2)
        both = torch.linalg.solve(eye - half, both)
        return DenseSystem.of(both[..., :-1], both[..., -1], self.C.to(dtype), T)

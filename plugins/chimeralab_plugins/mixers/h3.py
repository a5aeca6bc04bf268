"""H3: a shift and a diagonal state space with products between, after linear attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, ParamGroup, Place, SpecError, ops
from chimeralab_plugins.past import convolve, remember
from chimeralab_plugins.projection import projection
from chimeralab_plugins.state_space.diagonal import DiagonalSystem, discretise, prefill_flops
from chimeralab_plugins.state_space.hippo import diagonal_spectrum
from chimeralab_plugins.state_space.parameters import (
    as_complex,
    complex_normal,
    full_precision,
    groups_with_own_rate,
    log_steps,
    parameter,
)


class H3Config(MixerConfig):
    d_state: int = Field(64, ge=2, le=1024, multiple_of=2, description="State N of the diagonal state space")
    shift: int = Field(64, ge=2, le=1024, description="State of the shift: tokens that its kernel sees")
    head_dim: int = Field(1, ge=1, le=64, description="Width of a head, whose keys and values meet in an outer product")
    dt_min: float = Field(0.001, gt=0, le=1, description="Smallest step Δ at the start")
    dt_max: float = Field(0.1, gt=0, le=1, description="Largest step Δ at the start")
    lr_scale: float = Field(0.1, gt=0, le=1, description="Learning rate of A, B and Δ, as a multiple of the run's")

    def check(self, d_model: int) -> None:
        if d_model % self.head_dim:
            raise SpecError(
                f"head_dim {self.head_dim} does not divide width {d_model}",
                place="mixer h3",
                remedy="Choose a head_dim that divides the width",
            )


class H3State(NamedTuple):
    keys: Tensor  # B shift-1 D: the shift's last inputs
    h: Tensor  # B head_dim² H N/2 2: the diagonal state space, in float32 or better


class H3(Mixer):
    """q, k, v = W x + b;  y = W_o (q ⊙ SSM_diag(SSM_shift(k) ⊙ v)) + b_o, with heads of width 1; for wider ones

        y_h = q_hᵀ SSM_diag(SSM_shift(k)_h v_hᵀ).

    SSM_shift remembers the last inputs: a convolution with as many free taps. SSM_diag is S4D with one kernel a
    head, S4D-Lin at the start and zero-order hold. Both add a multiple of their input.

    Source: Hungry Hungry Hippos (arXiv 2212.14052), algorithm 1; defaults of the authors' `H3`.
    """

    name = "h3"
    title = "H3"
    family = "State space"
    summary = "Shift and diagonal state spaces with products between: recall and comparison without attention"
    source = "https://arxiv.org/abs/2212.14052"
    color = "#b3689b"
    views = frozenset({"convolutional", "recurrent"})
    ops = ("long_convolution",)
    Config = H3Config
    config: H3Config

    def __init__(self, config: H3Config, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        heads = d_model // config.head_dim
        self.in_proj = projection(d_model, 3 * d_model, bias=True)  # rows of q, k, v
        self.shift = nn.Parameter(torch.randn(d_model, config.shift) / config.shift**0.5)
        self.shift_skip = nn.Parameter(torch.randn(d_model))
        A = diagonal_spectrum("lin", config.d_state)
        self.log_dt = log_steps(heads, config.dt_min, config.dt_max)
        self.log_A = parameter((-A.real).log(), heads)  # H M
        self.A_imag = parameter(A.imag, heads)  # H M
        self.B = parameter(torch.ones_like(A), heads)  # H M 2
        self.C = complex_normal(heads, config.d_state // 2)  # H M 2
        self.skip = nn.Parameter(torch.randn(heads))
        self.out_proj = projection(d_model, d_model, bias=True, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: H3Config, d_model: int) -> Cost:
        N, taps, heads, pairs = config.d_state, config.shift, d_model // config.head_dim, config.head_dim**2

        def prefill(T: int) -> float:
            diagonal = ops.long_convolution_cost(heads, sequences=pairs).prefill_flops(T)
            return diagonal + prefill_flops(heads, N, T, sequences=pairs)

        return (
            Cost.linear(d_model, 3 * d_model, bias=True)
            + Cost.linear(d_model, d_model, bias=True)
            + Cost.weights(d_model * (taps + 1) + heads * (2 + 3 * N))
            + Cost.work(ops.long_convolution_cost(d_model, taps).prefill, lambda _: 2.0 * d_model * taps)
            + Cost.work(prefill, lambda _: 2.0 * heads * pairs * N)
            + Cost.state(lambda _: d_model * (taps - 1))
            + Cost.state(lambda _: heads * pairs * N, accumulator=True)
        )

    def param_groups(self) -> list[ParamGroup]:
        return groups_with_own_rate(self, (self.log_dt, self.log_A, self.A_imag, self.B), self.config.lr_scale)

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> H3State:
        wide = torch.promote_types(dtype, torch.float32)
        width, M = self.config.head_dim, self.config.d_state // 2
        return H3State(
            torch.zeros(batch, self.config.shift - 1, self.d_model, device=device, dtype=dtype),
            torch.zeros(batch, width * width, self.d_model // width, M, 2, device=device, dtype=wide),
        )

    def forward(self, x: Tensor, state: H3State | None = None) -> tuple[Tensor, H3State]:  # x: B T D
        width = self.config.head_dim
        q, k, v = self.in_proj(x).chunk(3, -1)
        before = state.keys if state is not None else k.new_zeros(len(x), self.config.shift - 1, self.d_model)
        keys = remember(before, k, self.config.shift - 1)
        k = convolve(k, self.shift, self.shift_skip, past=state.keys if state is not None else None)

        q, k, v = (t.unflatten(-1, (-1, width)).permute(0, 3, 1, 2) for t in (q, k, v))  # B w T H
        kv = k.unsqueeze(2) * v.unsqueeze(1)  # B w w T H: each pair of channels is a sequence of its own
        y, h = self._remember_products(kv.flatten(0, 2), state.h.flatten(0, 1) if state is not None else None)
        y = (q.unsqueeze(2) * y.view_as(kv)).sum(1)  # B w T H
        return self.out_proj(y.permute(0, 2, 3, 1).flatten(2)), H3State(keys, h.unflatten(0, (len(x), -1)))

    def _remember_products(self, kv: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """The diagonal state space over sequences B' T H: outputs and next state."""
        wide, T = torch.promote_types(kv.dtype, torch.float32), kv.shape[1]
        with full_precision(kv):
            system, u = self._system(wide), kv.to(wide)
            if T == 1 and h is not None:
                y, h = system.step(u.squeeze(1), h)
                y = y.unsqueeze(1) + self.skip.to(wide) * u
            else:
                y = ops.long_convolution(u, system.kernel(T), self.skip)
                y = y if h is None else y + system.response(h, T)
                h = system.last_state(u, h)
        return y.to(kv.dtype), h

    def _system(self, dtype: torch.dtype) -> DiagonalSystem:
        A = torch.complex(-self.log_A.to(dtype).exp(), self.A_imag.to(dtype))
        B, C = as_complex(self.B, dtype), as_complex(self.C, dtype)
        return DiagonalSystem(*discretise(A, B, self.log_dt.to(dtype).exp(), "zoh"), C)

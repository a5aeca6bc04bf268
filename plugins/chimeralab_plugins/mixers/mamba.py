"""Mamba: a state-space layer whose step, input and output maps are chosen by each token."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, ops
from chimeralab_plugins.signed_scan import signed_scan
from chimeralab_plugins.step_size import step_bias


class MambaConfig(MixerConfig):
    d_state: int = Field(16, ge=1, le=1024, description="State N of each channel")
    conv: int = Field(4, ge=2, le=16, description="Taps of the convolution")
    expand: int = Field(2, ge=1, le=16, description="Inner width as a multiple of the model's")
    dt_rank: int | None = Field(None, ge=1, description="Rank of the map to the step Δ; empty: width / 16, rounded up")
    inner_norm: Literal["none", "plain", "weighted"] = Field(
        "none", description="RMS norm of Δ, B and C: plain as in Falcon Mamba, weighted as in Jamba"
    )
    norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in those norms")
    negative_eigenvalues: bool = Field(
        False, description="Decays 2 exp(ΔA) − 1 between −1 and 1: state tracking, and each token's state is held"
    )

    def widths(self, d_model: int) -> tuple[int, int]:
        """(inner width I, rank R of the step)."""
        return self.expand * d_model, self.dt_rank or -(-d_model // 16)


class MambaState(NamedTuple):
    conv: Tensor  # B W-1 I: last inputs of the convolution
    ssm: Tensor  # B I N, float32 or better


class SelectiveSSM(nn.Module):
    """u = silu(conv(x)),  (dt, B, C) = W_x u,  Δ = softplus(W_Δ dt + b),
    h_t = exp(Δ_t A) ⊙ h_{t-1} + Δ_t u_t B_tᵀ,  y_t = (h_t C_t + D ⊙ u_t) ⊙ silu(z_t).

    With negative eigenvalues the decay is 2 exp(Δ_t A) − 1 (arXiv 2411.12537, section 4.3).
    """

    def __init__(self, config: MambaConfig, d_model: int) -> None:
        super().__init__()
        self.config = config
        self.inner, self.rank = config.widths(d_model)
        N = config.d_state
        bound = 1 / math.sqrt(config.conv)
        self.conv_weight = nn.Parameter(torch.empty(self.inner, config.conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(self.inner).uniform_(-bound, bound))
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * N, bias=False)
        self.dt_proj = nn.Linear(self.rank, self.inner, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.dt_bias = nn.Parameter(step_bias(self.inner))
        self.A_log = nn.Parameter(torch.arange(1.0, N + 1).log().repeat(self.inner, 1))  # S4D-Real
        self.A_log.weight_decay = False  # type: ignore[attr-defined]
        self.D = nn.Parameter(torch.ones(self.inner))
        widths = (self.rank, N, N) if config.inner_norm == "weighted" else ()
        self.norms = nn.ParameterList(torch.ones(width) for width in widths)

    @classmethod
    def cost(cls, config: MambaConfig, d_model: int) -> Cost:
        inner, rank = config.widths(d_model)
        N, taps = config.d_state, config.conv
        return (
            Cost.weights(inner * (taps + 1 + N + 2) + (config.inner_norm == "weighted") * (rank + 2 * N))
            + ops.short_convolution_cost(inner, taps)
            + Cost.linear(inner, rank + 2 * N)
            + Cost.linear(rank, inner)
            + ops.selective_scan_cost(inner, N)
        )

    def forward(self, x: Tensor, z: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:  # x, z: B T I
        config = self.config
        u, tail = ops.short_convolution(
            x, self.conv_weight, self.conv_bias, "silu", initial_state=state.conv if state else None
        )
        selected = self.x_proj(u).split((self.rank, config.d_state, config.d_state), -1)
        if config.inner_norm != "none":
            weights = self.norms if config.inner_norm == "weighted" else (None, None, None)
            selected = [ops.rms_norm(t, weight, config.norm_eps) for t, weight in zip(selected, weights, strict=True)]
        dt, B, C = selected
        # Steps and decays in float32 or better: exp(ΔA) close to 1 has no digits in bfloat16.
        wide = torch.promote_types(x.dtype, torch.float32)
        delta = F.softplus(self.dt_proj(dt).to(wide) + self.dt_bias.to(wide))  # B T I
        A = -self.A_log.to(wide).exp()
        before = state.ssm if state else None
        if config.negative_eigenvalues:
            y, ssm = self._signed(u, delta, A, B, C, z, before)
        else:
            y, ssm = ops.selective_scan(u, delta, A, B, C, self.D, z, initial_state=before)
        return y, MambaState(tail, ssm)

    def _signed(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, z: Tensor, h: Tensor | None
    ) -> tuple[Tensor, Tensor]:  # u, delta, z: B T I; A: I N; B, C: B T N; h: B I N
        wide = delta.dtype
        if h is None:
            h = delta.new_zeros(len(u), *A.shape)
        drive = (delta * u.to(wide)).unsqueeze(-1) * B.to(wide).unsqueeze(2)  # B T I N
        states, last = signed_scan(drive, 2 * torch.exp(delta.unsqueeze(-1) * A) - 1, h)
        read = (states @ C.to(wide).unsqueeze(-1)).squeeze(-1)
        return ((read + self.D * u) * F.silu(z.to(wide))).to(u.dtype), last


class Mamba(Mixer):
    """(x, z) = W_in ·,  y = W_out S6(x, z): a selective state space behind a short convolution, gated by z.

    Source: Mamba (arXiv 2312.00752), section 3; shapes, defaults and initialisation as `Mamba` of the authors'
    mamba_ssm. `SelectiveSSM` has the recurrence.
    """

    name = "mamba"
    title = "Mamba"
    family = "State space"
    summary = "Selective state space: each token chooses what to keep, in constant memory"
    source = "https://arxiv.org/abs/2312.00752"
    color = "#0b4f8a"
    views = frozenset({"chunked", "recurrent"})
    ops = ("selective_scan", "short_convolution", "rms_norm", "diagonal_scan")
    Config = MambaConfig
    config: MambaConfig

    def __init__(self, config: MambaConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        inner, _ = config.widths(d_model)
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)  # rows of x, z
        self.ssm = SelectiveSSM(config, d_model)
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(place.layers)

    @classmethod
    def cost(cls, config: MambaConfig, d_model: int) -> Cost:
        inner, _ = config.widths(d_model)
        return (
            Cost.linear(d_model, 2 * inner)
            + SelectiveSSM.cost(config, d_model)
            + Cost.linear(inner, d_model)
            + Cost.state(lambda _: inner * (config.conv - 1))
            + Cost.state(lambda _: inner * config.d_state, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MambaState:
        inner, wide = self.ssm.inner, torch.promote_types(dtype, torch.float32)
        return MambaState(
            torch.zeros(batch, self.config.conv - 1, inner, device=device, dtype=dtype),
            torch.zeros(batch, inner, self.config.d_state, device=device, dtype=wide),
        )

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:  # x: B T D
        u, z = self.in_proj(x).chunk(2, -1)
        y, state = self.ssm(u, z, state)
        return self.out_proj(y), state

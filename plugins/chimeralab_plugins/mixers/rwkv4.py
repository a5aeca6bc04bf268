"""RWKV-4: attention's weighted mean as a quotient of two linear recurrences in each channel."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, ParamGroup, Place, ops
from chimeralab_plugins import rwkv
from chimeralab_plugins.token_shift import previous_tokens, shift


class RWKV4Config(MixerConfig):
    """RWKV-4 has no options: its state is as wide as the model."""


class RWKV4State(NamedTuple):
    last: Tensor  # B D: the last token
    wkv: Tensor  # B 3 D, float32 or better: numerator, denominator and the exponent both are divided by


class RWKV4(Mixer):
    """y_t = W_o (σ(r_t) ⊙ Σ_{s≤t} a_s v_s / Σ_{s≤t} a_s),  a_s = e^{(t-1-s)w + k_s} for s < t,  a_t = e^{u + k_t},

    where r, k, v are projections of a token mixed with the one before it, μ x_t + (1 − μ) x_{t-1}, and each channel
    has a decay w = −exp(ω) and a bonus u for the present token.

    Source: RWKV (arXiv 2305.13048), equations 11–17; start and learning rates as the authors' RWKV-LM.
    """

    name = "rwkv4"
    title = "RWKV-4"
    family = "Recurrent"
    summary = "A decaying average with exponential weights in each channel: the smallest state there is"
    source = "https://arxiv.org/abs/2305.13048"
    color = "#0a9396"
    views = frozenset({"parallel", "recurrent"})
    ops = ("wkv4",)
    Config = RWKV4Config
    config: RWKV4Config

    def __init__(self, config: RWKV4Config, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        deep, shallow = rwkv.depth(place)
        self.mix_r = nn.Parameter(rwkv.ramp(d_model, 0.5 * shallow))
        self.mix_k = nn.Parameter(rwkv.ramp(d_model, shallow))
        self.mix_v = nn.Parameter(rwkv.ramp(d_model, shallow) + 0.3 * deep)
        self.receptance = rwkv.matrix(d_model, d_model, 0)
        self.key = rwkv.matrix(d_model, d_model, 0)
        self.value = rwkv.matrix(d_model, d_model, 1)
        self.decay = nn.Parameter(rwkv.decay_speeds(d_model, place, -5, 3))
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * rwkv.zigzag(d_model))
        self.output = rwkv.matrix(d_model, d_model, 0)

    @classmethod
    def cost(cls, config: RWKV4Config, d_model: int) -> Cost:
        return (
            4 * Cost.linear(d_model, d_model)
            + Cost.weights(5 * d_model)
            + ops.wkv4_cost(d_model)
            + Cost.state(lambda _: d_model)
            + Cost.state(lambda _: 3 * d_model, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> RWKV4State:
        last = torch.zeros(batch, self.d_model, device=device, dtype=dtype)
        return RWKV4State(last, ops.wkv4_state(batch, self.d_model, device=device, dtype=dtype))

    def param_groups(self) -> list[ParamGroup]:
        return rwkv.groups(self, {self.decay: 2.0, self.bonus: 3.0})

    def forward(self, x: Tensor, state: RWKV4State | None = None) -> tuple[Tensor, RWKV4State]:  # x: B T D
        previous = previous_tokens(x, state.last if state else None)
        r = torch.sigmoid(self.receptance(shift(x, previous, self.mix_r)))
        k = self.key(shift(x, previous, self.mix_k))
        v = self.value(shift(x, previous, self.mix_v))
        decay = -self.decay.to(torch.promote_types(x.dtype, torch.float32)).exp()
        y, wkv = ops.wkv4(k, v, decay, self.bonus, initial_state=state.wkv if state else None)
        return self.output(r * y), RWKV4State(x[:, -1], wkv)

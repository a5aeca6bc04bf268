"""QRNN: gates from a convolution over a few tokens, and a recurrence that only pools."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, Place, ops
from chimeralab_plugins.projection import projection


class QRNNConfig(MixerConfig):
    width: int | None = Field(None, ge=1, description="Width of the state; empty: the model's")
    taps: int = Field(2, ge=1, le=16, description="Tokens that the convolution sees, the current one included")
    pooling: Literal["f", "fo", "ifo"] = Field("fo", description="Gates: forget; and output; and input of its own")

    def shape(self, d_model: int) -> tuple[int, int]:
        """(width of the state, candidates and gates together)."""
        return self.width or d_model, 1 + len(self.pooling)


class QRNNState(NamedTuple):
    tail: Tensor  # B W-1 D: last inputs of the convolution
    c: Tensor  # B R, float32 or better


class QRNN(Mixer):
    """(z, f, o, i) = (tanh, σ, σ, σ)(W * x + b),  c_t = f_t ⊙ c_{t-1} + (1 − f_t) ⊙ z_t,  y_t = W_o (o_t ⊙ c_t),

    where W * x is a causal convolution over `taps` tokens. Pooling "f" has no o; "ifo" takes i_t in place of 1 − f_t.

    Source: Quasi-Recurrent Neural Networks (arXiv 1611.01576), section 2; two taps as in its language models.
    """

    name = "qrnn"
    title = "QRNN"
    family = "Recurrent"
    summary = "Gates by convolution, memory by pooling: the first RNN built for a parallel machine"
    source = "https://arxiv.org/abs/1611.01576"
    color = "#4d908e"
    views = frozenset({"parallel", "recurrent"})
    ops = ("diagonal_scan",)
    Config = QRNNConfig
    config: QRNNConfig

    def __init__(self, config: QRNNConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.width, parts = config.shape(d_model)
        self.conv = projection(config.taps * d_model, parts * self.width, bias=True)  # oldest token first
        self.o = projection(self.width, d_model, residuals=2 * place.layers)

    @classmethod
    def cost(cls, config: QRNNConfig, d_model: int) -> Cost:
        width, parts = config.shape(d_model)
        return (
            Cost.linear(config.taps * d_model, parts * width, bias=True)
            + ops.diagonal_scan_cost(width)
            + Cost.linear(width, d_model)
            + Cost.state(lambda _: d_model * (config.taps - 1))
            + Cost.state(lambda _: width, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> QRNNState:
        wide = torch.promote_types(dtype, torch.float32)
        return QRNNState(
            torch.zeros(batch, self.config.taps - 1, self.d_model, device=device, dtype=dtype),
            torch.zeros(batch, self.width, device=device, dtype=wide),
        )

    def forward(self, x: Tensor, state: QRNNState | None = None) -> tuple[Tensor, QRNNState]:  # x: B T D
        if state is None:
            state = self.init_state(x.shape[0], 0, device=x.device, dtype=x.dtype)
        T = x.shape[1]
        history = torch.cat([state.tail.to(x.dtype), x], 1)
        seen = torch.cat([history[:, tap : tap + T] for tap in range(self.config.taps)], -1)  # B T W·D
        wide = torch.promote_types(x.dtype, torch.float32)
        z, f, *gates = self.conv(seen).to(wide).chunk(1 + len(self.config.pooling), -1)
        enters = torch.sigmoid(gates[1] if self.config.pooling == "ifo" else -f)
        c, last = ops.diagonal_scan(enters * torch.tanh(z), F.logsigmoid(f), initial_state=state.c)
        if gates:
            c = torch.sigmoid(gates[0]) * c
        return self.o(c.to(x.dtype)), QRNNState(history[:, T:], last)

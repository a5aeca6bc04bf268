"""The attention-free transformer: each channel is a weighted mean of the past, with a bias by distance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection

EMPTY = -1e38  # the key of a token that is not there


class AFTConfig(MixerConfig):
    window: int = Field(
        0, ge=0, le=256, description="Distances with a learned bias (AFT-conv); 0 has none (AFT-simple). Memory grows"
    )
    heads: int = Field(4, ge=1, description="Groups of channels that share their biases")

    def check(self, d_model: int) -> None:
        if d_model % self.heads:
            raise SpecError(
                f"heads {self.heads} do not divide width {d_model}",
                place="mixer aft",
                remedy="Choose heads that divide the width",
            )


class AFTState(NamedTuple):
    k: Tensor  # B W D: keys of the window
    v: Tensor  # B W D
    wkv: Tensor  # B 3 D, float32 or better: sums over what has left the window, see `ops.wkv4`


class AFT(Mixer):
    """y_t = W_o (σ(q_t) ⊙ Σ_{s≤t} e^{k_s + w_{t-s}} v_s / Σ_{s≤t} e^{k_s + w_{t-s}}),

    channel by channel, where w is learned for the W nearest tokens, one for each head, and 0 for all before them:
    AFT-conv, made causal. Without a window it is AFT-simple, a running softmax over time in each channel.

    Source: An Attention Free Transformer (arXiv 2105.14103), sections 3.2–3.3, w taken as it is learned.
    """

    name = "aft"
    title = "AFT"
    family = "Attention"
    summary = "Attention-free transformer: a running weighted mean in each channel, biased by distance if wanted"
    source = "https://arxiv.org/abs/2105.14103"
    color = "#ee9b00"
    views = frozenset({"parallel", "recurrent"})
    ops = ("wkv4",)
    Config = AFTConfig
    config: AFTConfig

    def __init__(self, config: AFTConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.q = projection(d_model, d_model)
        self.k = projection(d_model, d_model)
        self.v = projection(d_model, d_model)
        self.o = projection(d_model, d_model, residuals=2 * place.layers)
        # Nearest last, as the taps of a convolution.
        self.bias = nn.Parameter(0.01 * torch.randn(config.heads, config.window)) if config.window else None
        if self.bias is not None:
            self.bias.weight_decay = False  # type: ignore[attr-defined]

    @classmethod
    def cost(cls, config: AFTConfig, d_model: int) -> Cost:
        return (
            4 * Cost.linear(d_model, d_model)
            + Cost.weights(config.heads * config.window)
            + ops.wkv4_cost(d_model)
            + Cost.state(lambda _: 2 * config.window * d_model)
            + Cost.state(lambda _: 3 * d_model, accumulator=True)
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> AFTState:
        window = (batch, self.config.window, self.d_model)
        return AFTState(
            torch.full(window, EMPTY, device=device, dtype=dtype),
            torch.zeros(window, device=device, dtype=dtype),
            ops.wkv4_state(batch, self.d_model, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, state: AFTState | None = None) -> tuple[Tensor, AFTState]:  # x: B T D
        if state is None:
            state = self.init_state(x.shape[0], 0, device=x.device, dtype=x.dtype)
        T = x.shape[1]
        k, v = (torch.cat([old, new.to(old.dtype)], 1) for old, new in ((state.k, self.k(x)), (state.v, self.v(x))))
        none = torch.zeros(self.d_model, device=x.device, dtype=state.wkv.dtype)
        y, wkv = ops.wkv4(k[:, :T], v[:, :T], none, none, initial_state=state.wkv)  # of what is W tokens old or older
        if self.bias is not None:
            y = self._with_window(y, k.to(wkv.dtype), v.to(wkv.dtype), state.wkv).to(y.dtype)
        return self.o(torch.sigmoid(self.q(x)) * y), AFTState(k[:, T:], v[:, T:], wkv)

    def _with_window(self, far: Tensor, k: Tensor, v: Tensor, wkv: Tensor) -> Tensor:
        """Join the mean over older tokens, B T D, with the W nearest of k and v, B W+T D: a softmax over W + 1."""
        T, W = far.shape[1], self.config.window
        _, total, largest = wkv.unbind(1)
        older = total.clamp(min=torch.finfo(total.dtype).tiny).log() + largest  # log of their weights' sum
        far_logit = torch.cat([older.unsqueeze(1), k[:, :T]], 1).logcumsumexp(1)[:, 1:]
        bias = self.bias.to(k.dtype).repeat_interleave(self.d_model // self.config.heads, 0).T  # W D
        near_k, near_v = (x[:, 1:].unfold(1, W, 1).permute(0, 3, 1, 2) for x in (k, v))  # B W T D, channels innermost
        logits = near_k + bias.unsqueeze(1)
        top = torch.maximum(far_logit, logits.amax(1)).detach()
        far_weight, weights = (far_logit - top).exp(), (logits - top.unsqueeze(1)).exp()
        return (far_weight * far + (weights * near_v).sum(1)) / (far_weight + weights.sum(1))

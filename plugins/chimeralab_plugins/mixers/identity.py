"""No mixer: a layer that is its feed-forward alone."""

from __future__ import annotations

from torch import Tensor

from chimeralab import Cost, Mixer, MixerConfig, State


class Identity(Mixer):
    """y = 0: the residual stream passes unchanged. Stacks see `null` and leave the branch and its norm out.

    Megatron's patterns and their like write sublayers; a feed-forward that follows no mixer stands on this one.
    """

    name = "identity"
    title = "Identity"
    family = "Combined"
    summary = "The layer is its feed-forward alone, as in sublayer patterns"
    source = "https://github.com/NVIDIA/Megatron-LM"
    color = "#9aa0a6"
    null = True
    Config = MixerConfig

    @classmethod
    def cost(cls, config: MixerConfig, d_model: int) -> Cost:
        return Cost()

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:  # x: B T D
        return 0 * x, state  # keeps its gradient, zero

"""The contract of a mixer: what moves information along the sequence."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from chimeralab.contracts.layer import Context, Layer, LayerConfig, Place, Result, State

View = Literal["parallel", "recurrent", "convolutional", "chunked"]


class MixerConfig(LayerConfig):
    """Options of a mixer; see `LayerConfig`."""

    @property
    def grid_columns(self) -> int | None:
        """Columns of the grid that it takes a sequence for, row by row; None: whatever the sequence is."""
        return None


class Mixer(Layer):
    """Maps `(B, T, D)` to `(B, T, D)`, mixing along T.

    One `forward` serves training, prefill and continuation:

    - `forward(x)` starts from nothing; `forward(x, state)` goes on from `state`. Splitting a sequence anywhere
      gives the same as one call.
    - `step` is the recurrent view, one token at a time; it agrees with `forward`.
    - Both return the state after their last token. A state is consumed: buffers may be reused in place, so the
      caller keeps only the newest (clone it to branch).
    - `init_state` gives the state before the first token, with room for `max_length` tokens where room is needed.
    - With `context = True`, `forward(x, state, context)` and `step(x, state, context)` may read and write what travels
      between layers (see `Context`); a `context` of None means that the mixer stands alone.

    `chimeralab.testing.MixerConformance` checks all of it.
    """

    views: ClassVar[frozenset[View]] = frozenset({"parallel", "recurrent"})
    causal: ClassVar[bool] = True
    null: ClassVar[bool] = False  # True: no mixer at all, no norm, no residual branch, no cost
    Config: ClassVar[type[LayerConfig]] = MixerConfig

    def __init__(self, config: LayerConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model)
        self.place = place

    def forward(self, x: Tensor, state: State = None) -> Result:  # x: B T D
        raise NotImplementedError(f"{type(self).__name__} has no forward(x, state)")

    def step(self, x: Tensor, state: State, context: Context | None = None) -> Result:  # x: B D
        """One token. The default runs `forward` on a sequence of length one."""
        y, state = self.forward_with({} if context is None else context, x.unsqueeze(1), state)
        return y.squeeze(1), state

    def init_from_attention(self, q: Tensor, k: Tensor, v: Tensor, o: Tensor) -> None:
        """Optional: start from the projections of an attention layer, q, k, v, o as `nn.Linear` weights (out, in).

        Raises:
            PluginError: this mixer cannot be started from attention.
        """
        from chimeralab.errors import PluginError

        raise PluginError(f"mixer {self.name!r} cannot be started from attention weights")

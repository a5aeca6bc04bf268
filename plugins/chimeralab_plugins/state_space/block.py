"""What S4, S4D and LSSL have in common: convolve, GELU, mix the channels through a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from chimeralab import Cost, Mixer, MixerConfig, ParamGroup, Place, SpecError, ops
from chimeralab_plugins.state_space.parameters import full_precision, groups_with_own_rate, log_steps


class Recurrence(Protocol):
    """A discretised state space over the channels of a layer, one token at a time."""

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]: ...


class System(Recurrence, Protocol):
    """The same over many tokens."""

    def kernel(self, T: int) -> Tensor: ...
    def response(self, state: Tensor, T: int) -> Tensor: ...
    def last_state(self, u: Tensor, state: Tensor | None) -> Tensor: ...


class StateSpaceConfig(MixerConfig):
    d_state: int = Field(64, ge=2, le=1024, description="State N of each channel, in real numbers")
    dt_min: float = Field(0.001, gt=0, le=1, description="Smallest step Δ at the start")
    dt_max: float = Field(0.1, gt=0, le=1, description="Largest step Δ at the start")
    lr_scale: float = Field(0.1, gt=0, le=1, description="Learning rate of A, B and Δ, as a multiple of the run's")

    def check(self, d_model: int) -> None:
        if self.dt_min > self.dt_max:
            raise SpecError(
                f"dt_min {self.dt_min} exceeds dt_max {self.dt_max}",
                place="state space",
                remedy="Choose dt_min below dt_max",
            )
        if self.d_state % 2:
            raise SpecError(
                f"d_state {self.d_state} is odd",
                place="state space",
                remedy="Choose an even one: complex states come in conjugate pairs",
            )


class StateSpaceState(NamedTuple):
    h: Tensor  # B D …, N real numbers a channel, in float32 or better


class StateSpaceMixer(Mixer):
    """y = GLU(W gelu(K * x + D ⊙ x) + b), with the kernel K of a state space for each channel.

    A channel may have several outputs, each with its own row of C and D. A subclass gives the space itself: its
    parameters, `system`, and its `dynamics` (A, B), which have their own learning rate and no weight decay.
    """

    views = frozenset({"convolutional", "recurrent"})
    ops: Sequence[str] = ("long_convolution",)
    Config = StateSpaceConfig
    config: Any
    gated: ClassVar[bool] = True  # GLU, or the linear map alone

    def __init__(
        self,
        config: StateSpaceConfig,
        d_model: int,
        place: Place = Place(),  # noqa: B008
        outputs: int = 1,
    ) -> None:
        super().__init__(config, d_model, place)
        self.outputs = outputs
        self.log_dt = log_steps(d_model, config.dt_min, config.dt_max)
        self.D = nn.Parameter(torch.randn(d_model * outputs))
        self.out_proj = nn.Linear(d_model * outputs, d_model * (1 + self.gated))

    def system(self, dtype: torch.dtype, T: int) -> System:
        """The state space of the parameters as they are now, for calls over T tokens, in float32 or better."""
        raise NotImplementedError

    def recurrence(self, dtype: torch.dtype) -> Recurrence:
        """The same for one token at a time."""
        return self.system(dtype, 1)

    def dynamics(self) -> Sequence[nn.Parameter]:
        raise NotImplementedError

    def state_shape(self) -> tuple[int, ...]:
        """Of one channel."""
        raise NotImplementedError

    @classmethod
    def block_cost(cls, config: StateSpaceConfig, d_model: int, outputs: int = 1) -> Cost:
        """Without the state space's own parameters and work."""
        inner = d_model * outputs
        return (
            Cost.weights(d_model + inner)
            + Cost.linear(inner, d_model * (1 + cls.gated), bias=True)
            + Cost.work(ops.long_convolution_cost(inner).prefill, lambda _: 0.0)
            + Cost.state(lambda _: d_model * config.d_state, accumulator=True)
        )

    def param_groups(self) -> list[ParamGroup]:
        return groups_with_own_rate(self, [self.log_dt, *self.dynamics()], self.config.lr_scale)

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> StateSpaceState:
        wide = torch.promote_types(dtype, torch.float32)
        return StateSpaceState(torch.zeros(batch, self.d_model, *self.state_shape(), device=device, dtype=wide))

    def forward(self, x: Tensor, state: StateSpaceState | None = None) -> tuple[Tensor, StateSpaceState]:  # x: B T D
        wide = torch.promote_types(x.dtype, torch.float32)
        with full_precision(x):
            system, u = self.system(wide, x.shape[1]), x.to(wide)
            y = ops.long_convolution(self._copies(u), system.kernel(x.shape[1]), self.D)
            if state is not None:
                y = y + system.response(state.h, x.shape[1])
            h = system.last_state(u, state.h if state is not None else None)
        return self._mix(y.to(x.dtype)), StateSpaceState(h)

    def step(self, x: Tensor, state: StateSpaceState) -> tuple[Tensor, StateSpaceState]:  # x: B D
        wide = torch.promote_types(x.dtype, torch.float32)
        with full_precision(x):
            y, h = self.recurrence(wide).step(x.to(wide), state.h)
            y = y + self.D.to(wide) * self._copies(x.to(wide))
        return self._mix(y.to(x.dtype)), StateSpaceState(h)

    def _copies(self, u: Tensor) -> Tensor:
        """Each channel once for each of its outputs."""
        return u if self.outputs == 1 else u.repeat_interleave(self.outputs, -1)

    def _mix(self, y: Tensor) -> Tensor:
        y = self.out_proj(F.gelu(y))
        return F.glu(y, -1) if self.gated else y

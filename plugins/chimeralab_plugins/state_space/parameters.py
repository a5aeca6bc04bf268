"""How state spaces are stored: complex numbers as pairs of real ones, rates as logarithms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from chimeralab import Mixer, ParamGroup


def parameter(values: Tensor, channels: int) -> nn.Parameter:
    """The same initial values for every channel: channels …, on the device in force; complex ones as pairs."""
    real = torch.view_as_real(values) if values.is_complex() else values
    copies = real.expand(channels, *real.shape).to(torch.get_default_dtype(), copy=True)
    return nn.Parameter(copies.to(torch.get_default_device()))


def complex_normal(*shape: int) -> nn.Parameter:
    """Complex numbers of variance 1, as pairs."""
    return nn.Parameter(torch.randn(*shape, 2) * 0.5**0.5)


def log_steps(channels: int, low: float, high: float) -> nn.Parameter:
    """log Δ, uniform between log `low` and log `high`."""
    return nn.Parameter(torch.rand(channels) * math.log(high / low) + math.log(low))


def as_complex(pairs: Tensor, dtype: torch.dtype) -> Tensor:
    """… 2 to complex numbers of the precision `dtype`, float32 or better."""
    return torch.view_as_complex(pairs.to(dtype).contiguous())


def full_precision(x: Tensor) -> AbstractContextManager:
    """Within it autocast leaves products in their own dtype: a kernel in bfloat16 forgets what it should remember."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def groups_with_own_rate(mixer: Mixer, own: Iterable[nn.Parameter], lr_scale: float) -> list[ParamGroup]:
    """The default groups, with the parameters in `own` taken out into one without weight decay."""
    apart = list(own)
    ids = {id(p) for p in apart}
    groups = [
        ParamGroup([p for p in group.params if id(p) not in ids], group.weight_decay, group.lr_scale)
        for group in Mixer.param_groups(mixer)
    ]
    return [group for group in groups if group.params] + [ParamGroup(apart, weight_decay=False, lr_scale=lr_scale)]

"""Convolutions that go on from the inputs they have seen: the state of a kernel without a recurrence."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from chimeralab import SpecError, ops
from chimeralab_plugins.state_space.parameters import full_precision


def convolve(
    x: Tensor,  # B T D
    kernel: Tensor,  # D L
    skip: Tensor,  # D
    gate: Tensor | None = None,  # B T D
    past: Tensor | None = None,  # B S D: inputs before x, newest last; zeros stand for none
) -> Tensor:
    """`ops.long_convolution` over the past and x, at the tokens of x: B T D in the dtype of x."""
    if past is None:
        return ops.long_convolution(x, kernel, skip, gate)
    if x.shape[1] > 1:
        y = ops.long_convolution(torch.cat([past.to(x.dtype), x], 1), kernel, skip)[:, past.shape[1] :]
        return y if gate is None else gate * y
    wide = torch.promote_types(x.dtype, torch.float32)
    seen = torch.cat([past.to(wide), x.to(wide)], 1)[:, -kernel.shape[1] :]
    taps = kernel[:, : seen.shape[1]].to(wide).flip(-1)  # the newest input meets tap 0
    with full_precision(x):
        y = torch.einsum("bsd,ds->bd", seen, taps).unsqueeze(1) + skip.to(wide) * x.to(wide)
    return (y if gate is None else gate.to(wide) * y).to(x.dtype)


def remember(past: Tensor | None, x: Tensor, slots: int) -> Tensor:
    """The newest inputs, at most `slots`: B S D. A past of that many keeps its shape; a shorter one grows."""
    if past is None:
        return x[:, -slots:]
    return torch.cat([past, x.to(past.dtype)], 1)[:, -slots:]


class Past(NamedTuple):
    """The inputs that a kernel of L taps still reads. With a `length` its room is fixed; without one it grows to L."""

    inputs: Tensor  # B S D, newest last; zeros stand for none
    length: Tensor | None  # 0-dim int64: tokens seen

    @classmethod
    def empty(cls, batch: int, slots: int, width: int, *, device: Any, dtype: torch.dtype) -> Past:
        inputs = torch.zeros(batch, slots, width, device=device, dtype=dtype)
        return cls(inputs, torch.zeros((), device=device, dtype=torch.int64))

    @classmethod
    def after(cls, past: Past | None, x: Tensor, taps: int) -> Past:
        """The past once x (B T D) has been read.

        Raises SpecError: its room is fixed, and inputs that the kernel still reads would fall out. On a GPU one
        token at a time is not checked, so as not to wait for the device: the caller counts.
        """
        if past is None or past.length is None:
            return cls(remember(past.inputs if past else None, x, taps), None)
        slots, T = past.inputs.shape[1], x.shape[1]
        checked = T > 1 or (x.device.type == "cpu" and not torch.compiler.is_compiling())
        if slots < taps and checked and int(past.length) + T > slots:
            raise SpecError(
                f"the input history has room for {slots} tokens and would hold {int(past.length) + T}",
                place="long convolution",
                remedy="Ask init_state for a larger max_length",
            )
        return cls(remember(past.inputs, x, slots), past.length + T)

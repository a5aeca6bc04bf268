"""Dense projections and how they start."""

from __future__ import annotations

import math

from torch import Tensor, nn

from chimeralab import SpecError


def projection(d_in: int, d_out: int, *, bias: bool = False, residuals: int = 1) -> nn.Linear:
    """A linear map with normal weights of standard deviation 1/√(d_in · residuals), and zero bias.

    The last projection of a layer passes the number of residual branches in the stack: their sum then keeps
    its size whatever the depth (GPT-2, section 2.3).
    """
    linear = nn.Linear(d_in, d_out, bias=bias)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(d_in * residuals))
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def take_weight(linear: nn.Linear, weight: Tensor, place: str) -> None:
    """Copy another layer's weight (out, in). Raises SpecError: the shapes differ."""
    if linear.weight.shape != weight.shape:
        raise SpecError(
            f"a weight of shape {tuple(weight.shape)} does not fit one of {tuple(linear.weight.shape)}",
            place=place,
            remedy="Set width, heads and head width as in the layer that the weights come from",
        )
    linear.weight.data.copy_(weight)

"""Float32 numbers as two of bfloat16, whose products are summed in float32: 16 bits in place of 8."""

from __future__ import annotations

import triton.language as tl

from chimeralab_kernels.triton_tier.first_call import jit


@jit
def halves(x):
    """The number next to x, and what it lacks."""
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)


@jit
def halved_dot(x, y, add):
    """x y + add, for a float32 x and a bfloat16 y, which is exact."""
    high, low = halves(x)
    return tl.dot(low, y, tl.dot(high, y, add))

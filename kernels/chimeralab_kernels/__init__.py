"""First-party kernels: up to three tiers of every op, and what comes with torch.

- `reference`: the recurrence or formula as it is written, one token after another; the oracle, in any dtype.
- `torch`: chunked matrix products; any device, autograd and torch.compile.
- `triton`: GPU kernels, imported when first called.
- `cudnn` and `flash`, for attention: GPU kernels of other libraries that torch brings.
"""

from __future__ import annotations

from chimeralab import Kernel, hookimpl


@hookimpl
def register_kernels() -> list[Kernel]:
    from chimeralab_kernels import library_tiers, reference, torch_tier, triton_tier

    return [*reference.kernels(), *torch_tier.kernels(), *triton_tier.kernels(), *library_tiers.kernels()]

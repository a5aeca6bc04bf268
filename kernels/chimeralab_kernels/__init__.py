"""First-party kernels: three tiers of every op.

- `reference`: the recurrence or formula as it is written, one token after another; the oracle, in any dtype.
- `torch`: chunked matrix products; any device, autograd and torch.compile.
- `triton`: GPU kernels, imported when first called.
"""

from __future__ import annotations

from chimeralab import Kernel, hookimpl


@hookimpl
def register_kernels() -> list[Kernel]:
    from chimeralab_kernels import reference, torch_tier, triton_tier

    return [*reference.kernels(), *torch_tier.kernels(), *triton_tier.kernels()]

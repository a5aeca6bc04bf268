"""Linear attention over Taylor features, with a column of ones beside the values for the sum that divides."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from chimeralab_kernels.precision import wide
from chimeralab_kernels.taylor import taylor_features
from chimeralab_kernels.torch_tier.gated_linear_attention import gated_linear_attention


def taylor_linear_attention(
    q: Tensor,  # B T H F
    k: Tensor,  # B T H F
    v: Tensor,  # B T H V
    initial_state: Tensor | None = None,  # B H K V+1
) -> tuple[Tensor, Tensor]:
    dtype = wide(v)
    q, k = (taylor_features(x.to(dtype)) for x in (q, k))
    values = F.pad(v.to(dtype), (0, 1), value=1.0)
    y, state = gated_linear_attention(q, k, values, scale=1.0, initial_state=initial_state)
    return (y[..., :-1] / y[..., -1:]).to(v.dtype), state

"""The `triton` tier: GPU kernels, forward and backward, that torch.compile takes as single operators.

Triton is imported when a kernel is first called. With TRITON_INTERPRET=1 in the environment the kernels run on a CPU
in Triton's interpreter, slowly, for tests (float32 only: its bfloat16 dot is wrong).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chimeralab import Kernel, ops
from chimeralab_kernels.triton_tier import memory_bound, tunings
from chimeralab_kernels.triton_tier.delta_plan import memory_lacks, sizes_lack
from chimeralab_kernels.triton_tier.machine import DTYPES, INSTALLED, INTERPRETED, machine_lacks

__all__ = ["DTYPES", "INSTALLED", "INTERPRETED", "kernels"]


def kernels() -> list[Kernel]:
    return [
        Kernel(
            "gated_linear_attention",
            "triton",
            _gated_linear_attention,
            _gated_linear_attention_unsupported,
            source="Mamba-2's SSD (arXiv 2405.21060) and GLA (arXiv 2312.06635), chunked; see docs/kernels.md",
            tunings=tunings.GATED_LINEAR_ATTENTION,
        ),
        Kernel(
            "taylor_linear_attention",
            "triton",
            _taylor_linear_attention,
            _taylor_linear_attention_unsupported,
            source="Based (arXiv 2402.18668), in chunks; see docs/kernels.md",
        ),
        Kernel(
            "delta_rule",
            "triton",
            _delta_rule,
            _delta_rule_unsupported,
            source="The WY form of DeltaNet (arXiv 2406.06484), chunked; see docs/kernels.md",
        ),
        Kernel(
            "long_convolution",
            "triton",
            _long_convolution,
            _long_convolution_unsupported,
            source="FlashFFTConv (arXiv 2311.05908); see docs/kernels.md",
        ),
        *memory_bound.kernels(),
    ]


def _gated_linear_attention(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    from chimeralab_kernels.triton_tier.gated_linear_attention import gated_linear_attention

    return gated_linear_attention(*args, **named)


def _gated_linear_attention_unsupported(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    bonus: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> str | None:
    reason = machine_lacks(q)
    if reason is not None:
        return reason
    if not (q.dtype == k.dtype == v.dtype and q.dtype in DTYPES):
        return f"takes q, k and v of one dtype among {', '.join(str(d) for d in DTYPES)}"
    if v.numel() == 0:
        return "needs at least one token"
    return None


def _taylor_linear_attention(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    from chimeralab_kernels.triton_tier.taylor_linear_attention import taylor_linear_attention

    return taylor_linear_attention(*args, **named)


def _taylor_linear_attention_unsupported(
    q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor | None = None
) -> str | None:
    reason = machine_lacks(q)
    if reason is not None:
        return reason
    if not (q.dtype == k.dtype == v.dtype and q.dtype in (torch.bfloat16, torch.float32)):
        return "takes q, k and v in bfloat16 or in float32; float16 does not hold their squares"
    if q.shape[-1] > 32:
        return "takes queries and keys of up to 32 channels"
    if v.numel() == 0:
        return "needs at least one token"
    return None


def _delta_rule(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    from chimeralab_kernels.triton_tier.delta_rule import delta_rule

    return delta_rule(*args, **named)


def _delta_rule_unsupported(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None = None,
    log_decay: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> str | None:
    reason = machine_lacks(q)
    if reason is not None:
        return reason
    if (a is None) != (b is None):
        return "takes a and b together"
    if q.dtype not in DTYPES or any(x is not None and x.dtype != q.dtype for x in (k, v, a, b)):
        return f"takes q, k, v, a and b of one dtype among {', '.join(str(d) for d in DTYPES)}"
    if v.numel() == 0:
        return "needs at least one token"
    # The step for one token takes every size up to 256.
    chunks = v.shape[1] > 1 or cu_seqlens is not None or torch.is_grad_enabled()
    by_channel = chunks and log_decay is not None and log_decay.dim() == 4
    K, V = q.shape[-1], v.shape[-1]
    reason = memory_lacks(ops.tiles.architecture(), K, V, q.dtype) if chunks else None
    return reason or sizes_lack(K, V, q.dtype, by_channel=by_channel, general=chunks and a is not None)


def _long_convolution(*args: Any, **named: Any) -> Tensor:
    from chimeralab_kernels.triton_tier.long_convolution import long_convolution

    return long_convolution(*args, **named)


def _long_convolution_unsupported(
    x: Tensor, kernel: Tensor, skip: Tensor | None = None, gate: Tensor | None = None
) -> str | None:
    reason = machine_lacks(x)
    if reason is not None:
        return reason
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    if x.dtype != dtype or (gate is not None and gate.dtype != dtype):
        return f"takes x and gate in {dtype}"
    if any(w is not None and w.dtype not in (torch.bfloat16, torch.float32) for w in (kernel, skip)):
        return "takes kernel and skip in bfloat16 or float32"
    if x.numel() == 0:
        return "needs at least one token"
    if x.shape[1] <= ops.DIRECT:
        return f"leaves up to {ops.DIRECT} tokens to a product with a Toeplitz matrix"
    if x.shape[1] > 32768:
        return "takes up to 32768 tokens: more parts than 16 do not compile"
    return None

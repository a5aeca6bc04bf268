"""Other libraries' kernels, as kernels of our ops: the arguments are ours, by position, and so are the results.

They are not registered: benchmarks/kernels.py times them beside what is.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chimeralab import Kernel
from chimeralab.op_cases import OpCase


def peers(case: OpCase) -> list[Kernel]:
    """The peers of a case that are installed."""
    known = {"torch.nn": TORCH} | ({"fla": FLA} if find_spec("fla") else {})
    return [
        Kernel(case.op, name, functions[case.name], _only_cuda if name == "fla" else lambda *_: None)
        for name, functions in known.items()
        if case.name in functions
    ]


def _only_cuda(x: Tensor, *_: Any) -> str | None:
    return None if x.is_cuda else "needs a CUDA device"


def _gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *_: Any) -> Any:
    from fla.ops.common import chunk_o
    from fla.ops.simple_gla import chunk_simple_gla

    # With Triton 3.4 to 3.7.0 on Hopper it refuses its backward pass, whose dk and dg may be wrong there: the errors
    # beside its times tell.
    chunk_o.TRITON_ABOVE_3_7_1 = True
    return chunk_simple_gla(q, k, v, g=g)[0]


def _gla_by_channel(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *_: Any) -> Any:
    from fla.ops.gla import chunk_gla

    return chunk_gla(q, k, v, g)[0]


def _gla_with_bonus(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor, *_: Any) -> Any:
    from fla.ops.rwkv6 import chunk_rwkv6

    return chunk_rwkv6(q, k, v, g, u, scale=q.shape[-1] ** -0.5)[0]


def _taylor(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Any:
    from fla.ops.based import parallel_based

    return parallel_based(q, k, v, use_norm=True)


def _delta(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *_: Any) -> Any:
    from fla.ops.delta_rule import chunk_delta_rule

    return chunk_delta_rule(q, k, v, beta)[0]


def _gated_delta(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, *_: Any) -> Any:
    from fla.ops.common import chunk_o
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    chunk_o.TRITON_ABOVE_3_7_1 = True  # as above
    return chunk_gated_delta_rule(q, k, v, g, beta)[0]


def _kimi_delta(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, *_: Any) -> Any:
    from fla.ops.kda import chunk_kda

    return chunk_kda(q, k, v, g, beta)[0]


def _general_delta(q: Tensor, k: Tensor, v: Tensor, beta: None, g: Tensor, a: Tensor, b: Tensor, *_: Any) -> Any:
    from fla.ops.rwkv7 import chunk_rwkv7

    return chunk_rwkv7(q, g, k, v, a, b, scale=q.shape[-1] ** -0.5, safe_gate=True)[0]


def _hgrn(x: Tensor, g: Tensor, *_: Any) -> Any:
    from fla.ops.hgrn import chunk_hgrn

    return chunk_hgrn(x, g)[0]


def _short_convolution(x: Tensor, weight: Tensor, bias: Tensor, activation: str, *_: Any) -> Any:
    from fla.modules.causal_conv1d.ops import causal_conv1d

    return causal_conv1d(x, weight, bias, activation=activation)[0]


def _rms_norm(x: Tensor, weight: Tensor, eps: float, *_: Any) -> Any:
    from fla.modules.norm.layernorm import rms_norm

    return rms_norm(x, weight, None, eps=eps)


def _gated_rms_norm(x: Tensor, weight: Tensor, eps: float, gate: Tensor) -> Any:
    from fla.modules.norm.layernorm_gated import rmsnorm_fn

    return rmsnorm_fn(x, weight, None, z=gate, eps=eps, norm_before_gate=False)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Any:
    from fla.modules.rotary import rotary_embedding

    return rotary_embedding(x, cos, sin)


def _swiglu(gate: Tensor, up: Tensor) -> Any:
    from fla.modules.activations import swiglu

    return swiglu(gate, up)


def _linear_cross_entropy(h: Tensor, weight: Tensor, target: Tensor, *_: Any) -> Any:
    from fla.modules.fused_linear_cross_entropy import fused_linear_cross_entropy_loss

    return fused_linear_cross_entropy_loss(h, target, weight, accumulate_grad_in_fp32=False)


FLA: dict[str, Callable[..., Any]] = {
    "gated_linear_attention, scalar decay": _gla,
    "gated_linear_attention, decay by channel": _gla_by_channel,
    "gated_linear_attention, decay by channel, bonus": _gla_with_bonus,
    "taylor_linear_attention": _taylor,
    "delta_rule, no decay": _delta,
    "delta_rule, scalar decay": _gated_delta,
    "delta_rule, decay by channel": _kimi_delta,
    "delta_rule, general": _general_delta,
    "diagonal_scan": _hgrn,
    "short_convolution": _short_convolution,
    "rms_norm": _rms_norm,
    "rms_norm, gated": _gated_rms_norm,
    "rotary": _rotary,
    "swiglu": _swiglu,
    "linear_cross_entropy": _linear_cross_entropy,
}

TORCH: dict[str, Callable[..., Any]] = {
    "rms_norm": lambda x, weight, eps, gate: F.rms_norm(x, x.shape[-1:], weight, eps),
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "linear_cross_entropy": lambda h, w, target, *_: F.cross_entropy(F.linear(h, w).float(), target),
    "short_convolution": lambda x, w, bias, *_: F.silu(
        F.conv1d(F.pad(x.mT, (w.shape[1] - 1, 0)), w.unsqueeze(1), bias, groups=len(w)).mT
    ),
    "grouped_linear": lambda x, w, ends: torch.cat(
        [F.linear(rows, w[e]) for e, rows in enumerate(x.split(torch.diff(ends, prepend=ends[:1] * 0).tolist()))]
    ),
}

"""FlashAttention-2 with windows, a prefix of keys, values of another size, and sinks.

A sink is one more key of which only the logit s counts. With Z the softmax's denominator, Z' = Z + eˢ and
y' = y Z / Z'. The backward pass of softmax attention takes its weights from log Z and the outputs alone: given log Z'
and y' it gives the gradients of q, k and v with sinks, and ds = −Σ e^{s − log Z'} (dy · y) Z / Z'.

ds is a sum over tokens whose terms cancel, so it is made from y, which has been rounded once; y' has been twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab_kernels.checks import check_window


def attention(
    q: Tensor,  # B T H K
    k: Tensor,  # B S G K
    v: Tensor,  # B S G V
    causal: bool = True,
    window: int | None = None,
    sinks: Tensor | None = None,  # H
    scale: float | None = None,
    q_offset: int | Tensor = 0,
) -> Tensor:
    check_window(causal, window)
    scale, V = q.shape[-1] ** -0.5 if scale is None else scale, v.shape[-1]
    if causal:  # the last query sees the last key, as the kernel takes it
        last = q_offset + q.shape[1]
        first = 0 if window is None else max(0, last - q.shape[1] - window + 1)
        k, v = k[:, first:last], v[:, first:last]
    size = -(-max(q.shape[-1], V) // 8) * 8
    q, k, v = (F.pad(x, (0, size - x.shape[-1])) if x.shape[-1] < size else x for x in (q, k, v))
    return flash_attention(q, k, v, sinks, causal, window or 0, scale)[0][..., :V]


@torch.library.custom_op("chimeralab::flash_attention", mutates_args=())
def flash_attention(
    q: Tensor,  # B T H K
    k: Tensor,  # B S G K
    v: Tensor,  # B S G K
    sinks: Tensor | None,  # H
    causal: bool,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """y' B T H K, log Z B H T in float32, and y, which is empty where there are no sinks.

    `window` 0 stands for none. Query T − 1 stands at key S − 1.
    """
    y, log_z = forward(q, k, v, causal, window, scale)
    if sinks is None:
        return y, log_z, q.new_empty(0)
    kept = (log_z - _joined(log_z, sinks)).exp()
    return (y * kept.mT.unsqueeze(-1)).to(y.dtype), log_z, y


@torch.library.custom_op("chimeralab::flash_attention_backward", mutates_args=())
def flash_attention_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    log_z: Tensor,
    without: Tensor,
    sinks: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and the sinks' gradient, which is empty where there are none; `without` is the output without them."""
    dy = dy.contiguous()
    d_sinks = q.new_empty(0)
    if sinks is not None:
        joined = _joined(log_z, sinks)
        share = (sinks.float().view(1, -1, 1) - joined).exp() * (log_z - joined).exp()
        d_sinks = -(share * (dy.float() * without.float()).sum(-1).mT).sum((0, 2)).to(sinks.dtype)
        log_z = joined
    return *backward(dy, q, k, v, y, log_z, causal, window, scale), d_sinks


def _joined(log_z: Tensor, sinks: Tensor) -> Tensor:
    """log Z' B H T."""
    return torch.logaddexp(log_z, sinks.float().view(1, -1, 1))


def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float) -> tuple[Tensor, Tensor]:
    found = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False, scale=scale, **_window(causal, window)
    )  # fmt: skip
    return found[0], found[1]


def backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_z: Tensor, causal: bool, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.empty(2, dtype=torch.uint64, device=q.device)  # the state of a dropout that there is not
    return torch.ops.aten._flash_attention_backward(
        dy, q, k, v, y, log_z, None, None, q.shape[1], k.shape[1], 0.0, causal, random, random[0],
        scale=scale, **_window(causal, window),
    )  # fmt: skip


def _window(causal: bool, window: int) -> dict[str, int]:
    return {"window_size_left": window - 1, "window_size_right": 0} if causal and window else {}


@flash_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, causal: bool, window: int, scale: float) -> tuple:
    B, T, H, _ = q.shape
    y = torch.empty_like(q, memory_format=torch.contiguous_format)
    return y, q.new_empty(B, H, T, dtype=torch.float32), q.new_empty(0) if sinks is None else torch.empty_like(y)


@flash_attention_backward.register_fake
def _(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    log_z: Tensor,
    without: Tensor,
    sinks: Tensor | None,
    *_: Any,
) -> tuple:
    grads = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return *grads, q.new_empty(0) if sinks is None else torch.empty_like(sinks)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, sinks, *ctx.settings = inputs
    ctx.save_for_backward(q, k, v, *output, sinks)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> tuple:
    tensors = ctx.saved_tensors
    dy = torch.zeros_like(tensors[3]) if dy is None else dy
    *grads, d_sinks = flash_attention_backward(dy, *tensors, *ctx.settings)
    return *grads, None if tensors[-1] is None else d_sinks, None, None, None


flash_attention.register_autograd(_differentiate, setup_context=_keep)


def _pairs(T: int, S: int, causal: bool, window: int) -> int:
    """Visible pairs, as the other kernels of attention are counted."""
    if not causal:
        return T * S
    return sum(min(window or S, S - T + t + 1) for t in range(T))


@register_flop_formula(torch.ops.chimeralab.flash_attention)
def _flops(q: Any, k: Any, v: Any, sinks: Any, causal: bool, window: int, scale: float, **_: Any) -> int:
    return 2 * q[0] * q[2] * _pairs(q[1], k[1], causal, window) * (q[3] + v[3])


@register_flop_formula(torch.ops.chimeralab.flash_attention_backward)
def _backward_flops(
    dy: Any,
    q: Any,
    k: Any,
    v: Any,
    y: Any,
    log_z: Any,
    without: Any,
    sinks: Any,
    causal: bool,
    window: int,
    scale: float,
    **_: Any,
) -> int:
    return 2 * q[0] * q[2] * _pairs(q[1], k[1], causal, window) * (3 * q[3] + 2 * v[3])

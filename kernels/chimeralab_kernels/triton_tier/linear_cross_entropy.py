"""Cross-entropy of a linear map, its gradients made in the forward pass from logits that live for one block of rows.

The loss is one number, so its gradients are known up to that number's own as soon as the logits are. Each block of rows
goes through

    logits = h Wᵀ
    logits ← softmax(logits) (1 + 2 z log Z) − onehot, or 0 where the target is ignored
    dh = logits W        dW += logitsᵀ h / M

with the middle step one kernel that works in place. The three matrix products are the library's; nothing is computed
twice. Without gradients the kernel leaves the logits as they are. These are slopes of the sum over rows, dW over their
number: in float16 those of the mean would be lost below its range, and a sum over rows above it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import KernelError
from chimeralab_kernels.checks import check_choice
from chimeralab_kernels.triton_tier.first_call import differentiate, jit, operator

ROWS = 1792
"""Rows of a block at most: 115 MB of bfloat16 logits for 32,000 words. Fewer take the products longer."""
BLOCKS = 10
"""Blocks at most where dW is added up in half precision: each addition rounds, and the error grows with their root."""
MANY = 2**15
"""From so many rows on they go in eight blocks there: 4096 rows at once are 3 % quicker than 2048."""


@jit
def _loss_and_slope(
    logits, target, counted, loss, V, z_loss, row_stride, BV: tl.constexpr, SLOPE: tl.constexpr, Z: tl.constexpr
):
    """One program a row: its loss, and, in place of its logits, the gradient; zeros for a row that is not counted."""
    row = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)  # last rows first: the cache still has them
    line = logits + row * row_stride
    column = tl.arange(0, BV)
    weight = tl.load(counted + row)
    word = tl.load(target + row)
    top = tl.full((BV,), -float("inf"), tl.float32)
    total = tl.zeros((BV,), tl.float32)
    for first in range(0, V, BV):
        x = tl.load(line + first + column, first + column < V, -float("inf")).to(tl.float32)
        higher = tl.maximum(tl.maximum(top, x), -1e30)  # finite where a lane has seen no word yet
        total = total * tl.exp(top - higher) + tl.exp(x - higher)
        top = higher
    largest = tl.max(top, 0)
    log_z = largest + tl.log(tl.sum(total * tl.exp(top - largest), 0))
    right = tl.load(line + word).to(tl.float32)
    value = log_z - right
    if Z:
        value += z_loss * log_z * log_z
    tl.store(loss + row, weight * value)
    if SLOPE:
        tl.debug_barrier()  # the right word's logit has been read by all before it is overwritten
        for first in range(0, V, BV):
            at = line + first + column
            x = tl.load(at, first + column < V, -float("inf")).to(tl.float32)
            slope = tl.exp(x - log_z)
            if Z:
                slope *= 1 + 2 * z_loss * log_z
            slope -= tl.where(first + column == word, 1.0, 0.0)
            tl.store(at, slope * weight, first + column < V)


def linear_cross_entropy(
    h: Tensor,  # M D
    weight: Tensor,  # V D
    target: Tensor,  # M
    reduction: str = "mean",
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    check_choice("linear_cross_entropy", "reduction", reduction, ("mean", "sum"))
    counted = target != ignore_index
    target = target.where(counted, 0)
    slopes = torch.is_grad_enabled() and (h.requires_grad or weight.requires_grad)
    loss = loss_with_gradients(h, weight, target, counted.to(torch.float32), z_loss, slopes)[0]
    return loss / counted.sum().clamp(min=1) if reduction == "mean" else loss


@operator("chimeralab::fused_linear_cross_entropy")
def loss_with_gradients(
    h: Tensor, weight: Tensor, target: Tensor, counted: Tensor, z_loss: float, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the losses, dh, and dW over the rows' number, for a gradient of 1; empty without `slopes`."""
    M, V = len(h), len(weight)
    words = weight.to(h.dtype)
    loss = h.new_empty(M, dtype=torch.float32)
    dh, d_weight = _slopes(h, weight, slopes)
    blocks = -(-M // ROWS)
    if weight.dtype != torch.float32:
        blocks = min(blocks, 8 if M >= MANY else BLOCKS)
    rows = -(-M // max(blocks, 1))  # of one size: a short last block would leave most of the GPU idle
    logits = h.new_empty((rows, V))
    for first in range(0, M, rows):
        block = h[first : first + rows]
        held = torch.mm(block, words.T, out=logits[: len(block)])
        _loss_and_slope[(len(block),)](
            held, target[first:], counted[first:], loss[first:], V, z_loss, held.stride(0),
            BV=min(4096, triton.next_power_of_2(V)), SLOPE=slopes, Z=z_loss != 0, num_warps=8,
        )  # fmt: skip
        if slopes:
            torch.mm(held, words, out=dh[first : first + rows])
            if d_weight.dtype == held.dtype:
                torch.addmm(d_weight, held.T, block, beta=float(first > 0), alpha=1 / M, out=d_weight)
            else:
                part = torch.addmm(held.new_zeros(()), held.T, block, beta=0, alpha=1 / M)
                d_weight = d_weight.copy_(part) if first == 0 else d_weight.add_(part)
    return loss.sum(), dh, d_weight


def _slopes(h: Tensor, weight: Tensor, slopes: bool) -> tuple[Tensor, Tensor]:
    if not slopes:
        return h.new_empty(0), weight.new_empty(0)
    return torch.empty_like(h, memory_format=torch.contiguous_format), weight.new_empty(weight.shape)


@loss_with_gradients.register_fake
def _(
    h: Tensor, weight: Tensor, target: Tensor, counted: Tensor, z_loss: float, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return h.new_empty((), dtype=torch.float32), *_slopes(h, weight, slopes)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.rows, ctx.spent = len(inputs[0]), False
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, d_loss: Tensor | None, *_: Any) -> tuple:
    if d_loss is None:
        return (None,) * 6
    if ctx.spent:
        raise KernelError(
            "the gradients of this loss have been handed out",
            place="linear_cross_entropy",
            remedy="Compute the loss again for a second backward pass, or ask for all gradients in one",
        )
    ctx.spent = True
    dh, d_weight = ctx.saved_tensors
    multiply(dh, d_loss)  # in place: copies would be the peak of a step's memory
    multiply(d_weight, d_loss * ctx.rows)
    return dh, d_weight, None, None, None, None


@jit
def _times(x, factor, n, BLOCK: tl.constexpr):
    by = tl.load(factor)
    if by != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(x + at, tl.load(x + at, at < n, 0.0).to(tl.float32) * by, at < n)


@operator("chimeralab::multiply", changes=("x",))
def multiply(x: Tensor, factor: Tensor) -> None:
    """x times a number of the device, in place and in float32: torch would round the number to x's dtype first."""
    _times[(-(-x.numel() // 4096),)](x, factor.to(torch.float32), x.numel(), BLOCK=4096, num_warps=8)


@multiply.register_fake
def _(x: Tensor, factor: Tensor) -> None:
    pass


differentiate(loss_with_gradients, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.fused_linear_cross_entropy)
def _flops(h: Any, weight: Any, target: Any, counted: Any, z_loss: float, slopes: bool, **_: Any) -> int:
    return (6 if slopes else 2) * h[0] * h[1] * weight[0]

"""Taylor linear attention on the GPU: how a call is cut, and its operator.

Chunks of C tokens: within a chunk every pair is weighed, as in attention; what lies before it is read from the moments
of keys and values, Σ φ(k) vᵀ, that are summed chunk by chunk first. Backwards the same holds for queries and the
gradients of outputs. A program is a block of one chunk; none waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from chimeralab import ops
from chimeralab_kernels.taylor import taylor_features
from chimeralab_kernels.triton_tier.first_call import differentiate, operator
from chimeralab_kernels.triton_tier.gated_linear_attention import gated_linear_attention
from chimeralab_kernels.triton_tier.launch import differentiated, fill, in_sixteens, matrix_size
from chimeralab_kernels.triton_tier.machine import INTERPRETED
from chimeralab_kernels.triton_tier.taylor_gradients import gradient_of_keys, gradient_of_queries
from chimeralab_kernels.triton_tier.taylor_kernels import moments, outputs, running, slopes
from chimeralab_kernels.triton_tier.taylor_step import taylor_step

WIDEST = 128
"""Values of a head that one program holds."""


@dataclass(frozen=True)
class Cut:
    """Sizes of one call's kernels; docs/kernels.md has the measurements behind the numbers."""

    F: int  # channels, with zeros
    chunk: int
    chunks: int
    block: int  # queries, keys
    features: int  # of a block
    warps: int
    stages: int
    precision: str

    @property
    def padded(self) -> int:
        """Features of so many channels, with zeros to fill a block."""
        return -(-ops.taylor_features_count(self.F) // self.features) * self.features


def cut_call(T: int, channels: int, dtype: torch.dtype) -> Cut:
    # Three products in TF32 for each leave float32 registers for blocks of 32 rows.
    if dtype == torch.float32:
        return Cut(channels, 128, -(-T // 128), 32, 32, 4, 2, "tf32x3")
    return Cut(channels, 512, -(-T // 512), 64, 32, 4, 3, "tf32")


def taylor_linear_attention(
    q: Tensor,  # B T H F
    k: Tensor,  # B T H F
    v: Tensor,  # B T H V
    initial_state: Tensor | None = None,  # B H K V+1
) -> tuple[Tensor, Tensor]:
    if v.shape[1] == 1 and not differentiated(q, k, v, initial_state):
        return taylor_step(q, k, v, initial_state)
    if v.dtype == torch.float32 and not INTERPRETED:  # in chunks it has been right at few sizes on a GPU
        return by_features(q, k, v, initial_state)
    return in_chunks(q, k, v, initial_state)


def by_features(q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """By gated linear attention over features in memory."""
    y, state = gated_linear_attention(
        taylor_features(q), taylor_features(k), F.pad(v, (0, 1), value=1.0), None, None, 1.0, initial_state
    )
    return y[..., :-1] / y[..., -1:], state


def in_chunks(q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """By the kernels in chunks, which keep features in registers."""
    dim, V = q.shape[-1], v.shape[-1]
    channels = matrix_size(dim)
    cut = cut_call(v.shape[1], channels, v.dtype)
    q, k = (fill(x, channels) for x in (q, k))
    scales, places = _scales(dim, v.device)[:, None], _places(dim, channels, v.device)
    raw = None
    if initial_state is not None:
        raw = initial_state.new_zeros((*initial_state.shape[:2], cut.padded, V + 1), dtype=torch.float32)
        raw = raw.index_copy(2, places, initial_state.float() / scales)
    sums = None if raw is None else raw[..., V].contiguous()
    pieces, states = [], []
    for start in range(0, V, WIDEST):
        width = min(WIDEST, V - start)
        filled = matrix_size(width)
        before = None if raw is None else fill(raw[..., start : start + width], filled).contiguous()
        y, state, total, *_ = fused_taylor(q, k, fill(v[..., start : start + width], filled), before, sums, dim)
        pieces.append(y[..., :width])
        states.append(state[..., :width])
    state = torch.cat([*states, total.unsqueeze(-1)], -1).index_select(2, places) * scales
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1), state


def _scales(dim: int, device: torch.device, channels: int | None = None) -> Tensor:
    """What the features of `taylor_features` are of the raw ones, of `dim` channels, filled up to `channels`."""
    i, j = torch.triu_indices(channels or dim, channels or dim, device=device).unbind(0)
    pairs = torch.where(i == j, (0.5 / dim) ** 0.5, dim**-0.5)
    return torch.cat([pairs.new_ones(1), pairs.new_full((channels or dim,), dim**-0.25), pairs])


def _places(dim: int, channels: int, device: torch.device) -> Tensor:
    """Where the features of `dim` channels stand among those of `channels`."""
    i, j = torch.triu_indices(dim, dim, device=device).unbind(0)
    pairs = 1 + channels + i * channels - i * (i - 1) // 2 + j - i
    return torch.cat([torch.arange(1 + dim, device=device), pairs])


@operator("chimeralab::taylor_linear_attention")
def fused_taylor(
    q: Tensor,  # B T H F
    k: Tensor,  # B T H F
    v: Tensor,  # B T H V
    initial: Tensor | None,  # B H R V
    initial_sums: Tensor | None,  # B H R
    dim: int,  # of F channels, those that are not zeros
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y; the last moments of values and of ones; what y is divided by; the moments before each chunk; y in float32
    where a gradient of queries is a small difference, in the first chunk (empty where there are more)."""
    call = _Call(q, k, v, dim)
    y, z = v.new_empty(v.shape), call.per_token()
    kept = v.new_empty(v.shape if call.keeps else (0,), dtype=torch.float32)
    before, sums, end, end_sums = call.states(call.k, call.v, None, None, initial, initial_sums, backwards=False)
    outputs[call.programs](
        call.q, call.k, call.v, before, sums, y, kept, z, *call.strides, *call.lengths, dim**-0.5,
        int(initial is not None), **call.sizes, KEEPS=call.keeps,
    )  # fmt: skip
    return y, end, end_sums, z, before, sums, kept


@operator("chimeralab::taylor_linear_attention_backward")
def fused_taylor_backward(
    dy: Tensor | None,
    d_end: Tensor | None,
    d_end_sums: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    z: Tensor,
    before: Tensor,
    sums: Tensor,
    dim: int,
    starts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, and those of the initial moments."""
    call = _Call(q, k, v, dim)
    dy = torch.zeros_like(v) if dy is None else in_sixteens(dy)
    r, e = call.per_token(), call.per_token()
    B, T, H, V = v.shape
    slopes[(B * H * -(-T // 32),)](y, dy, z, r, e, *dy.stride()[:3], T, H, V=V, BT=32)
    c, strides = dim**-0.5, (*call.strides, *dy.stride()[:3])
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    gradient_of_queries[call.programs](
        call.q, call.k, call.v, dy, r, e, before, sums, dq, *strides, *call.lengths, c, int(starts), **call.sizes
    )
    ends = d_end is not None or d_end_sums is not None
    last = torch.zeros_like(call.final(V)) if ends and d_end is None else d_end
    last_sums = torch.zeros_like(call.final()) if ends and d_end_sums is None else d_end_sums
    weights = call.weights()
    after, after_sums, first, first_sums = call.states(
        call.q, dy, r, e,
        None if last is None else (last / weights[:, None]).contiguous(),
        None if last_sums is None else (last_sums / weights).contiguous(),
        backwards=True,
    )  # fmt: skip
    gradient_of_keys[call.programs](
        call.q, call.k, call.v, dy, r, e, after, after_sums, dk, dv, *strides, *call.lengths, c, int(ends),
        **call.sizes,
    )  # fmt: skip
    return dq, dk, dv, first * weights[:, None], first_sums * weights


class _Call:
    """What the launches of one call share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, dim: int) -> None:
        self.q, self.k, self.v = (in_sixteens(x) for x in (q, k, v))
        B, T, H, V = v.shape
        self.dim, self.cut = dim, cut_call(T, q.shape[-1], v.dtype)
        cut = self.cut
        self.keeps = cut.chunks == 1 and v.dtype != torch.float32
        self.programs = (B * H * -(-T // cut.block),)
        self.strides = tuple(s for x in (self.q, self.k, self.v) for s in x.stride()[:3])
        self.lengths = (T, H, cut.chunks)
        shared = {"F": cut.F, "V": V, "R": cut.padded, "BF": cut.features, "C": cut.chunk}
        shared |= {"PRECISION": cut.precision, "num_warps": cut.warps, "num_stages": cut.stages}
        self.shared, self.sizes = shared, shared | {"BQ": cut.block, "BK": cut.block}

    def per_token(self) -> Tensor:
        B, T, H = self.v.shape[:3]
        return self.v.new_empty((B, H, T), dtype=torch.float32)

    def final(self, *columns: int) -> Tensor:
        B, _, H = self.v.shape[:3]
        return self.v.new_empty((B, H, self.cut.padded, *columns), dtype=torch.float32)

    def weights(self) -> Tensor:
        scales = _scales(self.dim, self.v.device, self.cut.F)
        return fill(scales.square()[None], self.cut.padded)[0].clamp_min(1e-9)

    def states(
        self,
        x: Tensor,
        y: Tensor,
        r: Tensor | None,
        e: Tensor | None,
        start: Tensor | None,
        start_sums: Tensor | None,
        *,
        backwards: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The moments before each chunk, or after it, of values and of ones, and those of all tokens."""
        (B, _, H, V), cut = y.shape, self.cut
        shape = (B * H, cut.chunks, cut.padded)
        own, own_sums = x.new_empty((*shape, V)), x.new_empty(shape, dtype=torch.float32)
        moments[(B * H * cut.chunks * (cut.padded // cut.features),)](
            x, y, r, e, own, own_sums, *x.stride()[:3], *y.stride()[:3], *self.lengths,
            **self.shared, BT=cut.block, SCALED=r is not None,
        )  # fmt: skip
        met, met_sums = x.new_empty((*shape, V)), torch.empty_like(own_sums)
        end, end_sums = self.final(V), self.final()
        for rows, first, before, last, block in (
            (own, start, met, end, 512),
            (own_sums, start_sums, met_sums, end_sums, 32),
        ):
            E = rows[0, 0].numel()
            running[(B * H * (E // block),)](
                rows, first, before, last, cut.chunks,
                E=E, BE=block, U=8, BACKWARDS=backwards, STARTS=first is not None, num_warps=max(1, block // 128),
            )  # fmt: skip
        return met, met_sums, end, end_sums


@fused_taylor.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, initial: Tensor | None, initial_sums: Tensor | None, dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, T, H, V = v.shape
    cut = cut_call(T, q.shape[-1], v.dtype)
    R, wide = cut.padded, torch.float32
    return (
        v.new_empty(v.shape),
        v.new_empty((B, H, R, V), dtype=wide),
        v.new_empty((B, H, R), dtype=wide),
        v.new_empty((B, H, T), dtype=wide),
        v.new_empty((B * H, cut.chunks, R, V)),
        v.new_empty((B * H, cut.chunks, R), dtype=wide),
        v.new_empty(v.shape if cut.chunks == 1 and v.dtype != wide else (0,), dtype=wide),
    )


@fused_taylor_backward.register_fake
def _(
    dy: Tensor | None,
    d_end: Tensor | None,
    d_end_sums: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    z: Tensor,
    before: Tensor,
    sums: Tensor,
    dim: int,
    starts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, V = v.shape
    R = sums.shape[2]
    first, first_sums = (v.new_empty((B, H, R, *more), dtype=torch.float32) for more in ((V,), ()))
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), first, first_sums


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    q, k, v, initial, _, ctx.dim = inputs
    y, _, _, z, before, sums, kept = output
    ctx.starts = initial is not None
    ctx.save_for_backward(q, k, v, kept if kept.numel() else y, z, before, sums)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, d_end: Tensor | None, d_sums: Tensor | None, *_: Any) -> tuple:
    *grads, first, first_sums = fused_taylor_backward(dy, d_end, d_sums, *ctx.saved_tensors, ctx.dim, ctx.starts)
    return *grads, first if ctx.starts else None, first_sums if ctx.starts else None, None


differentiate(fused_taylor, _differentiate, _keep)


@register_flop_formula(torch.ops.chimeralab.taylor_linear_attention)
def _flops(q: Any, k: Any, v: Any, initial: Any, sums: Any, dim: int, *_: Any, **__: Any) -> int:
    B, T, H, V = v
    return int(ops.taylor_linear_attention_cost(H, dim, V).prefill_flops(T) * B * T)


@register_flop_formula(torch.ops.chimeralab.taylor_linear_attention_backward)
def _backward_flops(dy: Any, d_end: Any, d_sums: Any, q: Any, k: Any, v: Any, *rest: Any, **__: Any) -> int:
    B, T, H, V = v
    return 2 * int(ops.taylor_linear_attention_cost(H, rest[4], V).prefill_flops(T) * B * T)

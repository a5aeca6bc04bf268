"""Launches of the delta rule's kernels: scores of each chunk, scans over chunks, segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chimeralab_kernels.triton_tier.delta_channel_scores import delta_channel_scores
from chimeralab_kernels.triton_tier.delta_general_scores import delta_general_scores
from chimeralab_kernels.triton_tier.delta_plan import scan_tile, within_tile
from chimeralab_kernels.triton_tier.delta_scan import delta_scan, join_delta_segments
from chimeralab_kernels.triton_tier.delta_scores import delta_scores, invert_systems
from chimeralab_kernels.triton_tier.gla_plan import Cut
from chimeralab_kernels.triton_tier.launch import matrix_size, strides


@dataclass(frozen=True)
class Chunks:
    """The operands of `delta_scan`, in its letters. With row factors x and w are both the keys."""

    system: Tensor  # B·H N 1|2 C C: (I + A)⁻¹ − I, of two it is the sum
    from_e: Tensor  # B·H N C C
    x: Tensor  # B T . K
    w: Tensor  # B T . K
    q: Tensor  # B T . K
    decay: Tensor  # B·H N C, or B·H N K
    scale: float = 1.0
    reads: Tensor | None = None  # B·H N C
    writes: Tensor | None = None  # B·H N C
    overlaps: Tensor | None = None  # B·H N C C: A, below the diagonal, in float32
    k: Tensor | None = None  # B T H K
    feed: Tensor | None = None  # B·H N C C
    from_v: Tensor | None = None  # B·H N C C
    steep: Tensor | None = None  # B·H N: whether a channel decays too strongly for one block


def scalar_chunks(
    cut: Cut,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    system: Tensor,
    scale: float,
    *,
    overlaps: bool,
) -> Chunks:
    """With one decay, or none, a token and head. `overlaps`: with A, of which `system` is made."""
    (B, T, H, _), (G, K) = v.shape, k.shape[2:]
    A, scores = matrices(cut, v, torch.float32) if overlaps else None, matrices(cut, v, v.dtype)
    reads, writes = (v.new_empty(B * H, cut.chunks, cut.chunk, dtype=torch.float32) for _ in range(2))
    delta_scores[(B * H * cut.chunks,)](
        q, k, g, beta, A, scores, reads, writes, cut.table,
        *strides(q), *strides(k), *strides(g), *strides(beta),
        T, H, cut.chunks, H // G, scale,
        K=K, BK=matrix_size(K), C=cut.chunk, DECAYS=g is not None, BETAS=beta is not None,
        OVERLAPS=overlaps, PACKED=cut.table is not None, PRECISION=precision(v), num_warps=4, num_stages=1,
    )  # fmt: skip
    return Chunks(system, scores, k, k, q, reads, scale, reads, writes, A)


def channel_chunks(
    cut: Cut,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    system: Tensor,
    scale: float,
    *,
    overlaps: bool,
) -> Chunks:
    """With a decay for each key channel, and with a and b."""
    (B, T, H, _), (G, K) = v.shape, k.shape[2:]
    general = a is not None
    A, from_e = matrices(cut, v, torch.float32) if overlaps else None, matrices(cut, v, v.dtype)
    feed, from_v = (matrices(cut, v, v.dtype) if general else None for _ in range(2))
    x, w, reads = (v.new_empty(B, T, H, K) for _ in range(3))
    adds = torch.empty_like(x) if general else None
    totals = v.new_empty(B * H, cut.chunks, K, dtype=torch.float32)
    steep = v.new_empty((B * H, cut.chunks), dtype=torch.int8)
    grid, sizes = (B * H * cut.chunks,), (T, H, cut.chunks, H // G, scale)
    for flat in (True, False):
        tile = within_tile(v.dtype, general=general, flat=flat)
        options = {
            "K": K, "BK": tile.block_k, "OVERLAPS": overlaps, **within_constants(cut, v, flat),
            "num_warps": tile.warps, "num_stages": tile.stages,
        }  # fmt: skip
        if general:
            delta_general_scores[grid](
                q, k, a, b, g, A, feed, from_e, from_v, x, w, reads, adds, totals, steep, cut.table,
                *(stride for y in (q, k, a, b) for stride in strides(y)), *g.stride(), *sizes, **options,
            )  # fmt: skip
        else:
            delta_channel_scores[grid](
                q, k, g, beta, A, from_e, x, w, reads, totals, steep, cut.table,
                *strides(q), *strides(k), *g.stride(), *strides(beta), *sizes, BETAS=beta is not None, **options,
            )  # fmt: skip
    return Chunks(
        system, from_e, x, w, reads, totals, overlaps=A, k=adds, feed=feed, from_v=from_v, steep=steep
    )  # fmt: skip


def within_constants(cut: Cut, v: Tensor, flat: bool) -> dict[str, Any]:
    """Of the kernels for a decay by channel."""
    single = v.dtype == torch.float32
    return {
        "C": cut.chunk, "LEVELS": cut.chunk.bit_length() - 1, "LIMIT": 8 if v.dtype == torch.float16 else 64,
        "PACKED": cut.table is not None,
        # In float32 Triton 3.6 may compile products of three wrongly within the loop over levels.
        "FLAT": flat, "SPLIT": not single, "PRECISION": precision(v) if flat or not single else "ieee",
    }  # fmt: skip


def matrices(cut: Cut, v: Tensor, dtype: torch.dtype, *parts: int) -> Tensor:
    """A matrix, or `parts` of one, for each chunk: B·H N C C."""
    return v.new_empty((v.shape[0] * v.shape[2], cut.chunks, *parts, cut.chunk, cut.chunk), dtype=dtype)


def invert(chunks: Chunks) -> None:
    """Write `system`. What `overlaps` has above its diagonals is lost."""
    n, m, parts, C, _ = chunks.system.shape
    invert_systems[(n * m,)](chunks.overlaps, chunks.system, C=C, HALVES=parts == 2, num_warps=1, num_stages=1)


def scan(
    cut: Cut,
    chunks: Chunks,
    v: Tensor | None,
    heads: int,
    *,
    backwards: bool = False,
    y: Tensor | None = None,
    e: Tensor | None = None,
    states: Tensor | None = None,
    start: Tensor | None = None,
    final: Tensor | None = None,
    segment: bool = False,
) -> None:
    """Launch `delta_scan`; without `v` it is the scan of the transition matrices."""
    c, rows = chunks, chunks.reads is not None
    x, w, q, k = (c.w, c.x, c.k, c.q) if backwards else (c.x, c.w, c.q, c.k)
    feed, from_e = (c.from_e, c.feed) if backwards else (c.feed, c.from_e)
    x_rows, w_rows = (c.writes, c.reads) if backwards else (c.reads, c.writes)
    B, T, K = x.shape[0], x.shape[1], x.shape[-1]
    V = K if v is None else v.shape[-1]
    halves = c.system.shape[2] == 2
    tile = scan_tile(
        K, V, x.dtype,
        rows=rows, halves=halves, general=c.feed is not None, output=y is not None, adds=k is not None,
    )  # fmt: skip
    delta_scan[(-(-V // tile.block_v) * cut.segments * B * heads,)](
        x, w, q, k, v, c.system, feed, from_e, c.from_v, x_rows, w_rows, c.reads, c.decay, e, y, states, start, final,
        cut.table, cut.offsets, *strides(x), *strides(w), *strides(q), *strides(k), *strides(v),
        T, heads, cut.chunks, heads // x.shape[2], cut.segments, cut.chunks_a_segment,
        *((1.0, -1.0) if backwards else (-1.0, 1.0)), c.scale,
        K=K, V=V, BK=matrix_size(K), BV=tile.block_v, C=cut.chunk,
        BACKWARDS=backwards, ROWS=rows, VALUES=v is not None, FEED=v is not None and feed is not None,
        OUTPUT=y is not None, FROM_V=c.from_v is not None, ADD=v is not None and k is not None,
        STATES=states is not None, STARTS=start is not None, SEGMENT=segment, ENDS=final is not None,
        PACKED=cut.table is not None, HALVES=halves, PRECISION=precision(x),
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def transitions(cut: Cut, chunks: Chunks, heads: int) -> Tensor:
    """The matrix of each segment: B·H segments K K."""
    B, K = chunks.x.shape[0], chunks.x.shape[-1]
    matrices = chunks.x.new_empty((B * heads, cut.segments, K, K), dtype=torch.float32)
    scan(cut, chunks, None, heads, final=matrices, segment=True)
    return matrices


def meet(
    cut: Cut, chunks: Chunks, v: Tensor, matrices: Tensor, initial: Tensor | None, *, backwards: bool = False
) -> Tensor:
    """The state that each segment meets, B·H segments K V: each one's own first, then a scan over them."""
    H, V = v.shape[2:]
    K = matrices.shape[-1]
    starts = matrices.new_empty((*matrices.shape[:3], V))
    scan(cut, chunks, v, H, backwards=backwards, final=starts, segment=True)
    block = min(matrix_size(V), 32)
    join_delta_segments[(len(starts) * -(-V // block),)](
        starts, matrices, initial, cut.segments,
        K=K, V=V, BK=matrix_size(K), BV=block, INITIAL=initial is not None, BACKWARDS=backwards,
        PRECISION=precision(v), num_warps=4, num_stages=1,
    )  # fmt: skip
    return starts


def precision(x: Tensor) -> str:
    """float32 products as three of the tensor cores' keep float32's accuracy; others are exact as they are."""
    return "tf32x3" if x.dtype == torch.float32 else "tf32"

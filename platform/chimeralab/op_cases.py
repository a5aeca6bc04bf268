"""Typical calls of each op, at any size: what `chimeralab kernels` and the conformance suite try, check and time.

The first case of an op is its plainest. Letters as in `chimeralab.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from chimeralab import ops


@dataclass(frozen=True)
class Size:
    """How large a call is; ops without heads are heads · head_dim wide."""

    batch: int
    tokens: int
    heads: int
    head_dim: int
    vocabulary: int = 32000

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def rows(self) -> int:
        return self.batch * self.tokens


SMALL = Size(2, 128, 4, 32, vocabulary=128)


class Draws:
    """Random tensors on one device, the same at every call; `dtype` is that of activations and weights."""

    def __init__(self, device: torch.device | str, dtype: torch.dtype) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self._generator = torch.Generator(self.device).manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        return self.wide(*shape).to(self.dtype)

    def wide(self, *shape: int) -> Tensor:
        """In float32, as what a recurrence multiplies again and again."""
        return torch.randn(shape, generator=self._generator, device=self.device)

    def unit(self, *shape: int) -> Tensor:
        return F.normalize(self.wide(*shape), dim=-1).to(self.dtype)

    def log_decay(self, *shape: int) -> Tensor:
        """Between 0 and −1, most of them near −0.05, as gates of trained models."""
        return -F.softplus(self.wide(*shape) - 3)

    def targets(self, count: int, vocabulary: int) -> Tensor:
        return torch.randint(vocabulary, (count,), generator=self._generator, device=self.device)


@dataclass(frozen=True)
class OpCase:
    """One form of an op. `draw` gives the arguments in the order in which the op hands them to a kernel.

    `products` are the FLOPs of the forward pass in matrix products that no algorithm avoids, where these rather than
    the bytes may bound the time. Arguments at `constants` take no gradient.
    """

    op: str
    form: str
    draw: Callable[[Draws, Size], tuple[Any, ...]]
    products: Callable[[Size], float] = lambda _: 0.0
    constants: tuple[int, ...] = ()
    loops: bool = False  # token after token, in every tier: slow at large sizes

    @property
    def name(self) -> str:
        return f"{self.op}, {self.form}" if self.form else self.op

    def arguments(self, size: Size, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, ...]:
        return self.draw(Draws(device, dtype), size)


def heads(draws: Draws, size: Size, groups: int = 1, key_dim: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v; `groups` heads share a key."""
    B, T, H, V = size.batch, size.tokens, size.heads, size.head_dim
    G, K = H // groups, key_dim or V
    return draws.normal(B, T, H, K), draws.normal(B, T, G, K), draws.normal(B, T, G, V)


def _attention(window: int | None = None, groups: int = 1, sinks: bool = False, wider: bool = False) -> Any:
    def draw(draws: Draws, size: Size) -> tuple[Any, ...]:
        q, k, v = heads(draws, size, groups, size.head_dim * 3 // 2 if wider else None)
        return q, k, v, True, _window(size, window), draws.wide(size.heads) if sinks else None, None, 0

    def products(size: Size) -> float:
        key_dim = size.head_dim * 3 // 2 if wider else size.head_dim
        cost = ops.attention_cost(size.heads, key_dim, size.head_dim, _window(size, window))
        return cost.prefill_flops(size.tokens) * size.rows

    return draw, products


def _window(size: Size, window: int | None) -> int | None:
    return None if window is None else min(window, size.tokens // 4)


def _neighborhood(draws: Draws, size: Size) -> tuple[Any, ...]:
    columns = math.gcd(size.tokens, 1 << (size.tokens.bit_length() - 1) // 2)
    return *heads(draws, size), (size.tokens // columns, columns), (5, 3), None


def _gla(by_channel: bool = False, bonus: bool = False) -> Callable[[Draws, Size], tuple[Any, ...]]:
    def draw(draws: Draws, size: Size) -> tuple[Any, ...]:
        shape = (size.batch, size.tokens, size.heads) + ((size.head_dim,) if by_channel else ())
        extra = draws.wide(size.heads, size.head_dim) if bonus else None
        return *heads(draws, size), draws.log_decay(*shape), extra, None, None, None

    return draw


def _delta(decay: str | None) -> Callable[[Draws, Size], tuple[Any, ...]]:
    def draw(draws: Draws, size: Size) -> tuple[Any, ...]:
        B, T, H, K = size.batch, size.tokens, size.heads, size.head_dim
        q, v, k, beta = draws.normal(B, T, H, K), draws.normal(B, T, H, K), draws.unit(B, T, H, K), None
        shapes = {"scalar": (B, T, H), "channel": (B, T, H, K), "general": (B, T, H, K)}
        g = draws.log_decay(*shapes[decay]) if decay else None
        if decay != "general":
            return q, k, v, draws.normal(B, T, H).sigmoid(), g, None, None, None, None, None
        a = draws.unit(B, T, H, K)
        return q, k, v, beta, g, a, -a * draws.normal(B, T, H, K).sigmoid(), None, None, None

    return draw


def _channels(draws: Draws, size: Size, count: int) -> list[Tensor]:
    return [draws.normal(size.batch, size.tokens, size.width) for _ in range(count)]


def _diagonal(draws: Draws, size: Size) -> tuple[Any, ...]:
    return *_channels(draws, size, 1), draws.log_decay(size.batch, size.tokens, size.width), None, None


def _diagonal_complex(draws: Draws, size: Size) -> tuple[Any, ...]:
    shape = (size.batch, size.tokens, size.width)
    return (
        torch.complex(draws.wide(*shape), draws.wide(*shape)),
        torch.complex(draws.log_decay(*shape), 3 * draws.wide(*shape)),
        None,
        None,
    )


def _selective(draws: Draws, size: Size, states: int = 16) -> tuple[Any, ...]:
    B, T, D = size.batch, size.tokens, size.width
    u, z = _channels(draws, size, 2)
    step, A = F.softplus(draws.wide(B, T, D) - 3).to(draws.dtype), -(1 + draws.wide(D, states).abs())
    return u, step, A, draws.normal(B, T, states), draws.normal(B, T, states), draws.normal(D), z, None, None


def _wkv4(draws: Draws, size: Size) -> tuple[Any, ...]:
    return *_channels(draws, size, 2), -draws.wide(size.width).abs(), draws.wide(size.width), None, None


def _rnn(cell: str) -> Callable[[Draws, Size], tuple[Any, ...]]:
    def draw(draws: Draws, size: Size) -> tuple[Any, ...]:
        gates, H, K = len(ops.CELLS[cell].gates), size.heads, size.head_dim
        x = draws.normal(size.batch, size.tokens, H, gates, K)
        return x, draws.normal(H, gates, K, K) / K**0.5, cell, draws.normal(H, gates, K), None, None

    return draw


def _short_convolution(draws: Draws, size: Size) -> tuple[Any, ...]:
    bias = draws.normal(size.width)
    return *_channels(draws, size, 1), draws.normal(size.width, 4), bias, "silu", None, None


def _long_convolution(draws: Draws, size: Size) -> tuple[Any, ...]:
    D, T = size.width, size.tokens
    x, gate = _channels(draws, size, 2)
    return x, draws.normal(D, T) / math.sqrt(T), draws.normal(D), gate


def _rms_norm(gated: bool) -> Callable[[Draws, Size], tuple[Any, ...]]:
    def draw(draws: Draws, size: Size) -> tuple[Any, ...]:
        x, *gate = _channels(draws, size, 2 if gated else 1)
        return x, draws.normal(size.width), 1e-6, gate[0] if gated else None

    return draw


def _add_rms_norm(draws: Draws, size: Size) -> tuple[Any, ...]:
    return *_channels(draws, size, 2), draws.normal(size.width), 1e-6


def _rotary(draws: Draws, size: Size) -> tuple[Any, ...]:
    x, angles = heads(draws, size)[0], draws.wide(size.tokens, size.head_dim // 2)
    return x, angles.cos().to(draws.dtype), angles.sin().to(draws.dtype)


def _grouped_linear(draws: Draws, size: Size) -> tuple[Any, ...]:
    D, M = size.width, size.rows
    ends = torch.tensor([M // 5, M // 5, M * 4 // 5, M], dtype=torch.int32, device=draws.device)
    return draws.normal(M, D), draws.normal(4, D, D) / D**0.5, ends


def _loss(draws: Draws, size: Size) -> tuple[Any, ...]:
    h, weight = draws.normal(size.rows, size.width), draws.normal(size.vocabulary, size.width) / size.width**0.5
    return h, weight, draws.targets(size.rows, size.vocabulary), "mean", 0.0, -100


CASES: tuple[OpCase, ...] = (
    OpCase("attention", "", *_attention()),
    OpCase("attention", "window of 512", *_attention(window=512)),
    OpCase("attention", "window of 512, sinks, 4 heads a key", *_attention(window=512, groups=4, sinks=True)),
    OpCase("attention", "keys wider than values", *_attention(wider=True)),
    OpCase("neighborhood_attention", "", _neighborhood),
    OpCase("gated_linear_attention", "scalar decay", _gla()),
    OpCase("gated_linear_attention", "decay by channel", _gla(by_channel=True)),
    OpCase("gated_linear_attention", "decay by channel, bonus", _gla(by_channel=True, bonus=True)),
    OpCase("taylor_linear_attention", "", lambda draws, size: (*heads(draws, size, key_dim=16), None)),
    OpCase("delta_rule", "scalar decay", _delta("scalar")),
    OpCase("delta_rule", "no decay", _delta(None)),
    OpCase("delta_rule", "decay by channel", _delta("channel")),
    OpCase("delta_rule", "general", _delta("general")),
    OpCase("diagonal_scan", "", _diagonal),
    OpCase("diagonal_scan", "complex", _diagonal_complex),
    OpCase("selective_scan", "", _selective),
    OpCase("wkv4", "", _wkv4),
    OpCase("rnn_scan", "lstm", _rnn("lstm"), loops=True),
    OpCase("short_convolution", "", _short_convolution),
    OpCase("long_convolution", "", _long_convolution),
    OpCase("rms_norm", "", _rms_norm(gated=False)),
    OpCase("rms_norm", "gated", _rms_norm(gated=True)),
    OpCase("add_rms_norm", "", _add_rms_norm),
    OpCase("rotary", "", _rotary, constants=(1, 2)),
    OpCase("swiglu", "", lambda draws, size: tuple(_channels(draws, size, 2))),
    OpCase("grouped_linear", "", _grouped_linear, lambda size: 2.0 * size.rows * size.width**2),
    OpCase("linear_cross_entropy", "", _loss, lambda size: 2.0 * size.rows * size.width * size.vocabulary),
)


def cases(op: str | None = None) -> tuple[OpCase, ...]:
    """The cases of an op, the plainest first; of every op without a name."""
    return tuple(case for case in CASES if op in (None, case.op))

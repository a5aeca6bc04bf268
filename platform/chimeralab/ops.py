"""The ops: what mixers compute with, and the dispatch to the kernel that computes it.

A mixer calls an op, never a kernel. Each op is a signature here; kernels (`reference`, `torch`, `triton`, a third
party's) come in as plugins. A call takes the kernel of the highest priority that supports its arguments; `pin`
fixes the choice for a run. Next to each op stands what it costs, counted from the algorithm.

Letters: B batch, T time, S keys, H heads, G groups (divide H), K key dim, V value dim, D width, W taps.
Decays are natural logarithms, at most 0. Recurrent ops take an initial state and return the final one; packed
sequences (`cu_seqlens`, int32, N + 1 offsets into T) need B = 1 and one initial state a sequence.
Products accumulate in float32 or better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chimeralab.contracts.cost import Cost
from chimeralab.contracts.kernel import Kernel
from chimeralab.errors import KernelError, did_you_mean

CHUNK = 64
"""Tokens in a chunk of a chunked algorithm; costs are counted with it."""


# -- attention --------------------------------------------------------------------------------------------------


def attention(
    q: Tensor,  # B T H K
    k: Tensor,  # B S G K
    v: Tensor,  # B S G V
    *,
    causal: bool = True,
    window: int | None = None,
    sinks: Tensor | None = None,  # H
    scale: float | None = None,
    q_offset: int | Tensor = 0,
) -> Tensor:
    """Softmax attention. Query t stands at position `q_offset + t`, key s at position s.

    Args:
        causal: a query sees keys at its own position and before.
        window: a query sees that many keys, its own position included; needs `causal`.
        sinks: one logit a head that takes part in the softmax and has no value.
        scale: multiplies the scores; default 1/√K.
        q_offset: position of the first query; a 0-dim tensor when it must not leave the device.

    Returns:
        B T H V, in the dtype of `q`.
    """
    return dispatch("attention", q, k, v, causal, window, sinks, scale, q_offset)


def visible_pairs(T: int, window: int | None = None) -> int:
    """(query, key) pairs that causal attention over T tokens looks at."""
    w = T if window is None else min(window, T)
    return w * (w + 1) // 2 + (T - w) * w


def attention_cost(heads: int, key_dim: int, value_dim: int, window: int | None = None) -> Cost:
    """2(K + V) FLOPs a head for each visible pair."""
    per_pair = 2.0 * heads * (key_dim + value_dim)
    return Cost.work(
        prefill=lambda T: per_pair * visible_pairs(T, window) / T,
        decode=lambda L: per_pair * (L if window is None else min(L, window)),
    )


# -- linear recurrences -----------------------------------------------------------------------------------------


def gated_linear_attention(
    q: Tensor,  # B T G K
    k: Tensor,  # B T G K
    v: Tensor,  # B T H V
    log_decay: Tensor | None = None,  # H | B T H | B T H K
    bonus: Tensor | None = None,  # H K
    scale: float | None = None,
    *,
    initial_state: Tensor | None = None,  # B H K V
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp g_t) S_{t-1} + k_t v_tᵀ,  y_t = scale · q_tᵀ S_t.

    The decay g is absent (1), fixed by head, a scalar for each token and head, or a vector over K. With `bonus` u
    the output reads S_{t-1} + diag(u) k_t v_tᵀ instead (RWKV-5/6). Head h uses group h // (H / G).
    Source: GLA (arXiv 2312.06635); Mamba-2's SSD (arXiv 2405.21060) is the scalar case.

    Args:
        scale: multiplies the output; default 1/√K.

    Returns:
        y: B T H V in the dtype of `v`; final state: B H K V in float32 or better.
    """
    return dispatch("gated_linear_attention", q, k, v, log_decay, bonus, scale, initial_state, cu_seqlens)


def gated_linear_attention_cost(
    heads: int, groups: int, key_dim: int, value_dim: int, *, channel_decay: bool = False
) -> Cost:
    """Chunked, with chunks of Q: scores 2QK a group, output 2QV a head, reading and writing the state 2KV each.

    With a decay by channel the scores are a head's own, and only pairs of different tokens take a product: (Q − 1)K.
    """
    read_write = 4.0 * heads * key_dim * value_dim

    def prefill(T: int) -> float:
        chunk = min(CHUNK, T)
        scores = (chunk - 1.0) * heads * key_dim if channel_decay else 2.0 * chunk * groups * key_dim
        return scores + 2.0 * chunk * heads * value_dim + read_write

    return Cost.work(prefill=prefill, decode=lambda _: read_write)


def short_convolution(
    x: Tensor,  # B T D
    weight: Tensor,  # D W
    bias: Tensor | None = None,  # D
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,  # B W-1 D
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution: y_t = act(Σ_w weight[:, w] · x_{t-W+1+w} + bias).

    Args:
        activation: None or "silu".

    Returns:
        y: B T D; tail: the last W - 1 inputs, B W-1 D, the state to go on from.
    """
    return dispatch("short_convolution", x, weight, bias, activation, initial_state, cu_seqlens)


def short_convolution_cost(width: int, taps: int) -> Cost:
    """2WD FLOPs a token."""
    flops = 2.0 * width * taps
    return Cost.work(prefill=lambda _: flops, decode=lambda _: flops)


# -- within a token ---------------------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor | None, eps: float = 1e-6, *, gate: Tensor | None = None) -> Tensor:
    """x / √(mean x² + eps) · weight over the last dimension; with `gate`, of x · silu(gate) (Mamba-2's order)."""
    return dispatch("rms_norm", x, weight, eps, gate)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves paired (Llama's layout). x: B T H K; cos, sin: T K/2 or B T K/2."""
    return dispatch("rotary", x, cos, sin)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    return dispatch("swiglu", gate, up)


def linear_cross_entropy(
    h: Tensor,  # M D
    weight: Tensor,  # V D
    target: Tensor,  # M
    *,
    reduction: str = "mean",
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """Cross-entropy of `h @ weightᵀ`, in nats, over the targets that are not `ignore_index`.

    `z_loss` times log² of the partition function is added. `reduction`: "mean" or "sum".
    """
    return dispatch("linear_cross_entropy", h, weight, target, reduction, z_loss, ignore_index)


OPS: tuple[str, ...] = (
    "attention",
    "gated_linear_attention",
    "short_convolution",
    "rms_norm",
    "rotary",
    "swiglu",
    "linear_cross_entropy",
)


# -- dispatch ---------------------------------------------------------------------------------------------------

_table: dict[str, tuple[Kernel, ...]] = {}
_pins: dict[str, str] = {}
_calls: list[Call] | None = None


@dataclass(frozen=True)
class Call:
    """One call of an op that `record` saw; `flops` are the matrix products that its kernel did."""

    op: str
    tier: str
    flops: int


def load() -> None:
    """Fill the dispatch table from the plugins; the model builder does it before anything is traced."""
    if not _table:
        from chimeralab.plugins import registry

        by_op: dict[str, list[Kernel]] = {}
        for kernel in registry().kernels.values():
            by_op.setdefault(kernel.op, []).append(kernel)
        for op, kernels in by_op.items():
            _table[op] = tuple(sorted(kernels, key=lambda kernel: -kernel.priority))


def kernels(op: str) -> tuple[Kernel, ...]:
    """The kernels of an op, best first."""
    load()
    return _table.get(op, ())


def choose(op: str, *args: Any) -> Kernel:
    """The kernel that a call with these arguments takes.

    Raises:
        KernelError: none supports them, or the pinned one does not.
    """
    if not _table:
        load()
    pinned = _pins.get(op)
    for kernel in _table.get(op, ()):
        if pinned is not None and kernel.tier != pinned:
            continue
        if kernel.unsupported(*args) is None:
            return kernel
    raise _no_kernel(op, args)


def dispatch(op: str, *args: Any) -> Any:
    kernel = choose(op, *args)
    if _calls is not None:
        return _recorded(kernel, _calls, args)
    return kernel.function(*args)


def explain(op: str, *args: Any) -> dict[str, str | None]:
    """For each tier, best first: why it cannot serve these arguments, or None when it can."""
    return {kernel.tier: kernel.unsupported(*args) for kernel in kernels(op)}


def check_pins(pins: Mapping[str, str]) -> None:
    """Raises KernelError: an op or tier that does not exist."""
    for op, tier in pins.items():
        if op not in OPS:
            raise KernelError(f"unknown op {op!r}", place="kernels", remedy=did_you_mean(op, OPS))
        tiers = [kernel.tier for kernel in kernels(op)]
        if tier not in tiers:
            raise KernelError(f"no kernel {tier!r}", place=f"kernels.{op}", remedy=did_you_mean(tier, tiers))


@contextmanager
def pin(pins: Mapping[str, str]) -> Iterator[None]:
    """Within the block each op named takes the kernel of that tier: `pin({"attention": "reference"})`."""
    check_pins(pins)
    before = dict(_pins)
    _pins.update(pins)
    try:
        yield
    finally:
        _pins.clear()
        _pins.update(before)


@contextmanager
def record() -> Iterator[list[Call]]:
    """Within the block every call is noted, with the matrix-product FLOPs that it did."""
    global _calls
    before, _calls = _calls, []
    try:
        yield _calls
    finally:
        _calls = before


def _recorded(kernel: Kernel, calls: list[Call], args: tuple) -> Any:
    with flop_counter() as counter:
        result = kernel.function(*args)
    calls.append(Call(kernel.op, kernel.tier, counter.get_total_flops()))
    return result


def flop_counter() -> torch.utils.flop_counter.FlopCounterMode:
    """torch's counter of matrix-product FLOPs, taught the CPU's attention and that causal means half."""
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    packets = (
        aten._scaled_dot_product_flash_attention_for_cpu,
        aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_efficient_attention,
        aten._scaled_dot_product_cudnn_attention,
    )
    mapping: dict[Any, Callable[..., int]] = dict.fromkeys(packets, _sdpa_flops)
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _sdpa_flops(q: Any, k: Any, v: Any, *args: Any, is_causal: bool | None = None, **_: Any) -> int:
    B, H, T, K = q
    S, V = v[-2:]
    if is_causal is None:  # positional; where it stands differs from backend to backend, but it is the last True
        is_causal = any(a is True for a in args[-2:])
    pairs = visible_pairs(T) if is_causal and T == S else T * S
    return 2 * B * H * pairs * (K + V)


def _no_kernel(op: str, args: tuple) -> KernelError:
    found = kernels(op)
    if not found:
        return KernelError(f"no kernel is installed for op {op!r}", remedy="See `chimeralab plugins`")
    pinned = _pins.get(op)
    reasons = "; ".join(
        f"{kernel.tier}: {kernel.unsupported(*args)}" for kernel in found if pinned in (None, kernel.tier)
    )
    remedy = f"Unpin {op!r} or pick a case it supports" if pinned else ""
    return KernelError(f"no kernel can compute it ({reasons})", place=f"op {op}", remedy=remedy)

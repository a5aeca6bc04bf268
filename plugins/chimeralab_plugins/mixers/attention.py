"""Softmax attention: many heads or few key-value heads, rotary positions, sliding window."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, Mixer, MixerConfig, Place, SpecError, ops
from chimeralab_plugins.projection import projection, take_weight

PLACE = "mixer attention"


class AttentionConfig(MixerConfig):
    heads: int | None = Field(None, ge=1, description="Query heads; default one for every 64 of the width")
    kv_heads: int | None = Field(
        None, ge=1, description="Key-value heads, each shared by heads / kv_heads queries (GQA; 1 is MQA)"
    )
    head_dim: int | None = Field(None, ge=1, le=512, description="Width of a head; default width / heads")
    window: int | None = Field(
        None, ge=1, description="Tokens that a token sees, itself included; default all before it"
    )
    rope: bool = Field(True, description="Rotary positions; without them only causality tells order")
    rope_theta: float = Field(10_000.0, gt=1, description="Base of the rotary wavelengths")
    qk_norm: bool = Field(False, description="RMS norm of queries and keys, per head (Qwen3)")
    bias: bool = Field(False, description="Biases in the four projections")

    def shape(self, d_model: int) -> tuple[int, int, int]:
        """(query heads, key-value heads, head dim)."""
        heads = self.heads or max(1, d_model // 64)
        return heads, self.kv_heads or heads, self.head_dim or d_model // heads

    def check(self, d_model: int) -> None:
        heads, kv_heads, head_dim = self.shape(d_model)
        if self.head_dim is None and d_model % heads:
            raise SpecError(
                f"heads {heads} do not divide width {d_model}",
                place=PLACE,
                remedy="Choose heads that divide the width, or set head_dim",
            )
        if heads % kv_heads:
            raise SpecError(
                f"kv_heads {kv_heads} do not divide heads {heads}",
                place=PLACE,
                remedy="Choose kv_heads that divide heads",
            )
        if self.rope and head_dim % 2:
            raise SpecError(
                f"rotary positions need an even head_dim, not {head_dim}",
                place=PLACE,
                remedy="Choose an even head_dim, or rope=false",
            )


class KVCache(NamedTuple):
    """Keys (rotated) and values of the tokens so far.

    With a `length` the buffers are preallocated and position p stands in slot p mod S: a windowed cache is a
    ring. Without one they hold every token so far, in order, and grow. The buffers keep their dtype under autocast.
    """

    k: Tensor  # B S G K
    v: Tensor  # B S G K
    length: Tensor | None  # 0-dim int64: tokens seen


class Attention(Mixer):
    """Causal softmax attention: y_t = W_o Σ_s softmax_s(q_t · k_s / √K) v_s over s ≤ t, and s > t - window.

    Source: Attention Is All You Need (arXiv 1706.03762); GQA arXiv 2305.13245; RoPE arXiv 2104.09864, halves
    paired as in Llama; sliding window: Mistral (arXiv 2310.06825); QK-norm: Qwen3 (arXiv 2505.09388).
    """

    name = "attention"
    title = "Attention"
    family = "Attention"
    summary = "Softmax attention with a KV cache: exact recall, memory that grows with the context"
    source = "https://arxiv.org/abs/1706.03762"
    color = "#d1495b"
    ops = ("attention", "rotary", "rms_norm")
    Config = AttentionConfig
    config: AttentionConfig

    def __init__(self, config: AttentionConfig, d_model: int, place: Place = Place()) -> None:  # noqa: B008
        super().__init__(config, d_model, place)
        self.heads, self.kv_heads, self.head_dim = config.shape(d_model)
        inner, kv_inner = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q = projection(d_model, inner, bias=config.bias)
        self.k = projection(d_model, kv_inner, bias=config.bias)
        self.v = projection(d_model, kv_inner, bias=config.bias)
        self.o = projection(inner, d_model, bias=config.bias, residuals=2 * place.layers)
        self.q_norm = nn.Parameter(torch.ones(self.head_dim)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(self.head_dim)) if config.qk_norm else None

    @classmethod
    def cost(cls, config: AttentionConfig, d_model: int) -> Cost:
        heads, kv_heads, head_dim = config.shape(d_model)
        window = config.window
        return (
            Cost.linear(d_model, heads * head_dim, bias=config.bias)
            + 2 * Cost.linear(d_model, kv_heads * head_dim, bias=config.bias)
            + Cost.linear(heads * head_dim, d_model, bias=config.bias)
            + Cost.weights(2 * head_dim if config.qk_norm else 0)
            + ops.attention_cost(heads, head_dim, head_dim, window)
            + Cost.state(lambda L: 2 * kv_heads * head_dim * (L if window is None else min(L, window)))
        )

    def init_state(
        self,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> KVCache:
        slots = min(max_length, self.config.window or max_length)
        shape = (batch, slots, self.kv_heads, self.head_dim)
        return KVCache(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros((), device=device, dtype=torch.int64),
        )

    def forward(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache]:  # x: B T D
        """Raises SpecError when a preallocated cache has no room for x."""
        T = x.shape[1]
        window = self.config.window
        if state is None:
            q, k, v = self._project(x, 0)
            return self._attend(q, k, v, window, 0), KVCache(k, v, None)
        if state.length is None:
            before = state.k.shape[1]
            q, k, v = self._project(x, before)
            k, v = torch.cat((state.k, k), 1), torch.cat((state.v, v), 1)
            return self._attend(q, k, v, window, before), KVCache(k, v, None)

        before, slots = int(state.length), state.k.shape[1]
        self._require_room(before + T, slots)
        q, k, v = self._project(x, before)
        kept = torch.arange(max(0, before - slots), before, device=x.device) % slots
        seen_k = torch.cat((state.k[:, kept].to(k.dtype), k), 1) if before else k
        seen_v = torch.cat((state.v[:, kept].to(v.dtype), v), 1) if before else v
        y = self._attend(q, seen_k, seen_v, window, len(kept))
        new = min(T, slots)
        written = torch.arange(before + T - new, before + T, device=x.device) % slots
        state.k.index_copy_(1, written, k[:, T - new :].to(state.k.dtype))
        state.v.index_copy_(1, written, v[:, T - new :].to(state.v.dtype))
        return y, KVCache(state.k, state.v, state.length + T)

    def step(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:  # x: B D
        """One token, without waiting for the device: a preallocated cache can be captured in a CUDA graph.

        On a GPU it cannot tell that the cache is full; the caller counts.
        """
        if state.length is None:
            return super().step(x, state)
        slots = state.k.shape[1]
        if state.length.device.type == "cpu" and not torch.compiler.is_compiling():
            self._require_room(int(state.length) + 1, slots)
        q, k, v = self._project(x.unsqueeze(1), state.length)
        slot = (state.length % slots).view(1)
        state.k.index_copy_(1, slot, k.to(state.k.dtype))
        state.v.index_copy_(1, slot, v.to(state.v.dtype))
        # Every slot of a full ring is inside the window, and softmax does not mind their order.
        last = state.length.clamp(max=slots - 1)
        y = self._attend(q, state.k.to(k.dtype), state.v.to(v.dtype), None, last)
        return y.squeeze(1), KVCache(state.k, state.v, state.length + 1)

    def init_from_attention(self, q: Tensor, k: Tensor, v: Tensor, o: Tensor) -> None:
        """Take the projections as they are. Raises SpecError: their shapes differ from this layer's."""
        take_weight(self.q, q, PLACE)
        take_weight(self.k, k, PLACE)
        take_weight(self.v, v, PLACE)
        take_weight(self.o, o, PLACE)

    def _project(self, x: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries B T H K and keys, values B T G K of tokens from `position` on."""
        q = self.q(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = self.v(x).unflatten(-1, (self.kv_heads, self.head_dim))
        if self.config.qk_norm:
            q, k = ops.rms_norm(q, self.q_norm), ops.rms_norm(k, self.k_norm)
        if self.config.rope:
            cos, sin = rotations(x, position, self.head_dim, self.config.rope_theta)
            q, k = ops.rotary(q, cos, sin), ops.rotary(k, cos, sin)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None, q_offset: int | Tensor) -> Tensor:
        return self.o(ops.attention(q, k, v, window=window, q_offset=q_offset).flatten(-2))

    def _require_room(self, tokens: int, slots: int) -> None:
        ring = self.config.window is not None and slots == self.config.window
        if tokens > slots and not ring:
            raise SpecError(
                f"the KV cache has room for {slots} tokens and would hold {tokens}",
                place=PLACE,
                remedy="Ask init_state for a larger max_length",
            )


def rotations(x: Tensor, position: int | Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, T K/2 each, of the angles for the tokens of x, the first of which stands at `position`.

    In float32 or better: bfloat16 cannot tell positions beyond 256 apart.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    half = torch.arange(0, head_dim, 2, device=x.device, dtype=wide) / head_dim
    positions = (torch.arange(x.shape[1], device=x.device) + position).to(wide)
    angles = positions[:, None] * theta**-half
    return angles.cos(), angles.sin()

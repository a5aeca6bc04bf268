"""Attention by cuDNN and FlashAttention-2 against the torch tier in float64. Run it on a machine with a GPU:

pytest tests/kernels/gpu_attention_cases.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from agreement import assert_agree, outputs_and_gradients

from chimeralab_kernels import library_tiers, torch_tier

EXACT = next(kernel.function for kernel in torch_tier.kernels() if kernel.op == "attention")
KERNELS = {kernel.tier: kernel for kernel in library_tiers.kernels()}
WINDOWS = {"window": 16, "sinks": True}
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {  # T S H G K V
    **{f"{T} tokens": ((T, T, 2, 2, 64, 64), {}) for T in (1, 7, 63, 65, 4097)},
    **{f"heads of {K}": ((200, 200, 2, 2, K, K), {}) for K in (32, 96, 128, 256)},
    "grouped keys": ((200, 200, 8, 2, 64, 64), {}),
    "not causal": ((200, 200, 4, 2, 64, 64), {"causal": False}),
    "other keys": ((70, 200, 4, 2, 64, 64), {"causal": False}),
    "window": ((300, 300, 4, 2, 64, 64), {"window": 100}),
    "window of two": ((70, 70, 2, 2, 64, 64), {"window": 2}),
    "sinks": ((300, 300, 4, 2, 64, 64), {"sinks": True}),
    "window and sinks": ((300, 300, 8, 2, 128, 128), WINDOWS),
    "window and sinks in a cache": ((30, 300, 8, 2, 64, 64), WINDOWS | {"q_offset": 250}),
    "prefix": ((30, 300, 4, 4, 64, 64), {"q_offset": 200}),
    "one token in a cache": ((1, 300, 4, 4, 64, 64), {"q_offset": 299}),
    "narrow values": ((200, 200, 4, 4, 192, 128), {}),
    "wide values": ((200, 200, 4, 4, 60, 100), {}),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tier", KERNELS)
@pytest.mark.parametrize(("sizes", "settings"), CASES.values(), ids=CASES)
def test_attention_agrees(tier: str, dtype: torch.dtype, sizes: tuple[int, ...], settings: dict[str, Any]) -> None:
    T, S, H, G, K, V = sizes
    torch.manual_seed(0)
    inputs = {
        "q": torch.randn(2, T, H, K, device="cuda", dtype=dtype),
        "k": torch.randn(2, S, G, K, device="cuda", dtype=dtype),
        "v": torch.randn(2, S, G, V, device="cuda", dtype=dtype),
    }
    settings = dict(settings)
    if settings.pop("sinks", False):
        inputs["sinks"] = torch.randn(H, device="cuda")
    kernel = KERNELS[tier]
    if kernel.unsupported(**inputs, **settings):
        whole = T == S > 1 and (K % 8, V % 8) == (0, 0) and (dtype == torch.bfloat16 or K == V <= 128)
        assert tier == "cudnn"
        assert settings or "sinks" in inputs or not whole  # cuDNN takes every plain case
        return
    found = outputs_and_gradients(lambda **x: kernel.function(**_rounded(x, dtype), **settings), inputs, torch.float32)
    assert_agree(found, outputs_and_gradients(lambda **x: EXACT(**x, **settings), inputs), 5e-3)


def _rounded(x: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: value if name == "sinks" else value.to(dtype) for name, value in x.items()}


@pytest.mark.parametrize("settings", [{}, {"window": 16}], ids=str)
def test_attention_compiles_to_one_graph(settings: dict[str, Any]) -> None:
    from chimeralab import ops

    ops.load()
    torch._dynamo.reset()
    q, k, v = (torch.randn(2, 128, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ops.attention(q, k, v, **settings).float().square().sum()

    expected = torch.autograd.grad(call(q, k, v), (q, k, v))
    found = torch.autograd.grad(torch.compile(call, fullgraph=True, backend="aot_eager")(q, k, v), (q, k, v))
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < 1e-2 * b.norm()

"""Attention by the kernels that come with torch: what they leave to others, and what is built around them.

The kernels need a GPU; `gpu_attention_cases.py` has what they compute.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from agreement import assert_agree, outputs_and_gradients
from torch import Tensor

from chimeralab import ops
from chimeralab_kernels import library_tiers, reference

REFERENCE = next(kernel.function for kernel in reference.kernels() if kernel.op == "attention")
KERNELS = {kernel.tier: kernel for kernel in library_tiers.kernels()}


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.fixture
def flash_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention's own two functions, from the blocked attention of the torch tier."""
    from chimeralab_kernels.library_tiers import flash_attention
    from chimeralab_kernels.torch_tier import blocked_attention as blocked

    def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float) -> tuple[Tensor, Tensor]:
        y, log_z = blocked.blocked_attention(q, k, v, causal, window, scale, k.shape[1] - q.shape[1])
        return y, log_z.mT.contiguous()

    def backward(dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_z: Tensor, *settings: Any) -> Any:
        settings = (*settings, k.shape[1] - q.shape[1])
        log_z = log_z.mT.to(dy.dtype)
        return blocked.blocked_attention_backward(dy, torch.zeros_like(log_z), q, k, v, y, log_z, *settings)

    monkeypatch.setattr(flash_attention, "forward", forward)
    monkeypatch.setattr(flash_attention, "backward", backward)


@pytest.mark.usefixtures("flash_of_blocks")
@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ((9, 9, 4, 4, 8, 8), {}),
        ((9, 9, 4, 2, 8, 8), {"causal": False}),
        ((9, 9, 4, 2, 8, 8), {"window": 3, "sinks": normal(4)}),
        ((5, 30, 4, 1, 8, 8), {"window": 7, "sinks": normal(4), "q_offset": 14}),
        ((9, 9, 2, 2, 12, 7), {"sinks": normal(2), "scale": 0.3}),
        ((9, 9, 2, 2, 6, 13), {}),
    ],
    ids=["causal", "not causal", "window and sinks", "prefix", "narrow values", "wide values"],
)
def test_flash_attention_is_framed_as_the_op_asks(sizes: tuple[int, ...], settings: dict[str, Any]) -> None:
    T, S, H, G, K, V = sizes
    inputs = {"q": normal(2, T, H, K), "k": normal(2, S, G, K), "v": normal(2, S, G, V)}
    sinks = settings.get("sinks")
    rest = {name: value for name, value in settings.items() if name != "sinks"}
    inputs |= {} if sinks is None else {"sinks": sinks}
    expected = outputs_and_gradients(lambda **x: REFERENCE(**x, **rest), inputs)
    found = outputs_and_gradients(lambda **x: KERNELS["flash"].function(**x, **rest), inputs)
    assert_agree(found, expected, 1e-6)  # log Z is kept in float32


@pytest.mark.usefixtures("flash_of_blocks")
def test_the_gradient_of_sinks_meets_no_output_that_was_rounded_twice() -> None:
    inputs = {name: normal(1, 9, 2, 8).bfloat16() for name in ("q", "k")}
    inputs |= {"v": normal(1, 1, 2, 8).bfloat16().expand(1, 9, 2, 8), "sinks": normal(2).float()}  # so that y = v
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    dy = normal(1, 9, 2, 8).bfloat16()
    (found,) = torch.autograd.grad(KERNELS["flash"].function(**leaves), leaves["sinks"], dy)
    (expected,) = torch.autograd.grad(REFERENCE(**exact), exact["sinks"], dy.double())
    assert (found - expected).norm() < 1e-5 * expected.norm()  # 1e-3 with y' of bfloat16


@pytest.mark.usefixtures("flash_of_blocks")
def test_flash_attention_is_a_sound_operator() -> None:
    from chimeralab_kernels.library_tiers.flash_attention import flash_attention

    q, k, v = (torch.randn(2, 5, heads, 4, requires_grad=True) for heads in (4, 2, 2))
    torch.library.opcheck(flash_attention, (q, k, v, torch.randn(4, requires_grad=True), True, 3, 0.5))
    torch.library.opcheck(flash_attention, (q, k, v, None, False, 0, 0.5))


@pytest.mark.parametrize("window", [None, 3])
def test_flash_attention_is_counted_by_visible_pairs(window: int | None) -> None:
    x = torch.empty(2, 9, 4, 8, device="meta")
    with ops.flop_counter() as counter:
        KERNELS["flash"].function(x, x, x, window=window)
    assert counter.get_total_flops() == ops.attention_cost(4, 8, 8, window).prefill_flops(9) * 2 * 9


class OnGpu:
    """Shape and dtype of a tensor that would be on a GPU."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> None:
        self.shape, self.dtype, self.device = shape, dtype, torch.device("cuda")

    def numel(self) -> int:
        return math.prod(self.shape)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Properties", (), {"major": 9}))
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def reasons(q: Any, k: Any, v: Any, *rest: Any) -> dict[str, str | None]:
    return {tier: kernel.unsupported(q, k, v, *rest) for tier, kernel in KERNELS.items()}


@pytest.mark.usefixtures("hopper")
def test_cudnn_takes_whole_sequences_and_flash_the_rest() -> None:
    x = OnGpu(2, 9, 4, 64)
    assert reasons(x, x, x) == {"cudnn": None, "flash": None}
    assert reasons(x, x, x, False) == {"cudnn": None, "flash": None}
    assert reasons(x, x, x, True, 3) == {"cudnn": "has no windows", "flash": None}
    assert reasons(x, x, x, True, 9)["cudnn"] is None
    assert reasons(x, x, x, True, None, OnGpu(4)) == {"cudnn": "has no sinks", "flash": None}
    wide = [OnGpu(2, 9, 4, size, dtype=torch.float16) for size in (64, 64, 128)]
    assert reasons(*wide) == {"cudnn": "has been checked with these head sizes in bfloat16 alone", "flash": None}
    prefixed = reasons(OnGpu(2, 3, 4, 64), x, x, True, None, None, None, 6)
    assert prefixed == {"cudnn": "takes causal attention over whole sequences alone", "flash": None}


@pytest.mark.usefixtures("hopper")
def test_what_neither_can_compute_is_left_to_the_torch_tier() -> None:
    x, one = OnGpu(2, 9, 4, 64), OnGpu(2, 1, 4, 64)
    assert all(reasons(*(OnGpu(2, 9, 4, 64, dtype=torch.float32) for _ in range(3))).values())
    assert all(reasons(*(OnGpu(2, 9, 4, 264) for _ in range(3))).values())
    assert all(reasons(one, x, x, True, None, None, None, torch.tensor(3)).values())
    assert all(reasons(one, x, x, True, None, None, None, 9).values())
    assert all(reasons(torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1, 8)).values())

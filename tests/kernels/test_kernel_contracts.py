"""What the dispatch, the cost model and torch.compile rely on, for every op of the torch tier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from agreement import delta_inputs, error, gla_inputs
from torch import Tensor

from chimeralab import ops
from chimeralab.contracts.cost import Cost
from chimeralab_kernels import triton_tier


def normal(*shape: int) -> Tensor:
    return torch.randn(shape)


def gla(decay: str) -> tuple:
    inputs = gla_inputs(decay, 70, bonus=decay == "channel")
    x = {name: value.float() for name, value in inputs.items()}
    return x["q"], x["k"], x["v"], x.get("log_decay"), x.get("bonus"), None, x["initial_state"], None


def delta(form: str) -> tuple:
    x = {name: value.float() for name, value in delta_inputs(form, 70).items()}
    rest = (x.get(name) for name in ("beta", "log_decay", "a", "b"))
    return x["q"], x["k"], x["v"], *rest, None, x["initial_state"], None


def attention(T: int, S: int, window: int | None, sinks: bool, offset: int) -> tuple:
    q, k, v = normal(2, T, 4, 8), normal(2, S, 2, 8), normal(2, S, 2, 8)
    return q, k, v, True, window, normal(4) if sinks else None, None, offset


CALLS: dict[str, tuple[str, tuple]] = {
    "gla without decay": ("gated_linear_attention", gla("none")),
    "gla, decay by head": ("gated_linear_attention", gla("head")),
    "gla, scalar decay": ("gated_linear_attention", gla("scalar")),
    "gla, channel decay and bonus": ("gated_linear_attention", gla("channel")),
    "taylor linear attention": (
        "taylor_linear_attention",
        (normal(2, 70, 4, 4), normal(2, 70, 4, 4), normal(2, 70, 4, 6), None),
    ),
    "delta rule": ("delta_rule", delta("plain")),
    "delta rule, scalar decay": ("delta_rule", delta("scalar")),
    "delta rule, channel decay": ("delta_rule", delta("channel")),
    "delta rule, general": ("delta_rule", delta("general")),
    "attention": ("attention", attention(70, 70, None, False, 0)),
    "attention, window and sinks": ("attention", attention(70, 70, 16, True, 0)),
    "attention in a cache": ("attention", attention(3, 70, None, False, 20)),
    "neighborhood attention": (
        "neighborhood_attention",
        (normal(2, 70, 4, 8), normal(2, 70, 2, 8), normal(2, 70, 2, 6), (7, 10), (3, 4), None),
    ),
    "diagonal scan": ("diagonal_scan", (normal(2, 70, 5), -normal(2, 70, 5).abs(), normal(2, 5), None)),
    "diagonal scan, fixed decay": ("diagonal_scan", (normal(2, 70, 5), -normal(5).abs(), normal(2, 5), None)),
    "selective scan": (
        "selective_scan",
        (
            normal(2, 70, 6),
            normal(2, 70, 6).abs(),
            -normal(6, 3).abs(),
            normal(2, 70, 3),
            normal(2, 70, 3),
            normal(6),
            normal(2, 70, 6),
            normal(2, 6, 3),
            None,
        ),
    ),
    "wkv4": (
        "wkv4",
        (normal(2, 70, 5), normal(2, 70, 5), -normal(5).abs(), normal(5), normal(2, 3, 5).abs(), None),
    ),
    **{
        f"rnn scan, {cell}": (
            "rnn_scan",
            (
                normal(2, 70, 2, len(shape.gates), 5),
                normal(2, len(shape.gates), 5, 5) / 5,
                cell,
                normal(2, len(shape.gates), 5),
                ops.rnn_scan_state(cell, 2, 2, 5),
                None,
            ),
        )
        for cell, shape in ops.CELLS.items()
    },
    "short convolution": (
        "short_convolution",
        (normal(2, 9, 5), normal(5, 4), normal(5), "silu", normal(2, 3, 5), None),
    ),
    "rms norm": ("rms_norm", (normal(2, 9, 8), normal(8), 1e-6, None)),
    "rms norm of a sum": ("add_rms_norm", (normal(2, 9, 8), normal(2, 9, 8), normal(8), 1e-6)),
    "gated rms norm": ("rms_norm", (normal(2, 9, 8), normal(8), 1e-6, normal(2, 9, 8))),
    "rotary": ("rotary", (normal(2, 9, 3, 8), normal(9, 4), normal(9, 4))),
    "swiglu": ("swiglu", (normal(2, 9, 8), normal(2, 9, 8))),
    "grouped linear": ("grouped_linear", (normal(9, 8), normal(3, 5, 8), torch.tensor([4, 4, 9], dtype=torch.int32))),
    "cross-entropy": (
        "linear_cross_entropy",
        (normal(9, 8), normal(11, 8), torch.arange(9), "mean", 0.1, -100),
    ),
}
every_call = pytest.mark.parametrize(("op", "args"), CALLS.values(), ids=CALLS.keys())


def tensors(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def function(op: str):
    return next(kernel.function for kernel in ops.kernels(op) if kernel.tier == "torch")


@every_call
def test_meta_device_gives_shapes_and_dtypes(op: str, args: tuple) -> None:
    real = tensors(function(op)(*args))
    meta = tensors(function(op)(*(x.to("meta") if isinstance(x, Tensor) else x for x in args)))
    assert [(y.shape, y.dtype) for y in meta] == [(y.shape, y.dtype) for y in real]


@every_call
def test_low_precision_is_close_and_keeps_its_dtype(op: str, args: tuple) -> None:
    low = tensors(function(op)(*(_as_bfloat16(x) for x in args)))
    for y, expected in zip(low, tensors(function(op)(*args)), strict=True):
        assert error(y, expected) < 0.02
    assert low[0].dtype == (torch.float32 if op == "linear_cross_entropy" else torch.bfloat16)


def _as_bfloat16(x: object) -> object:
    return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x


@every_call
def test_compiles_to_one_graph_with_its_backward(op: str, args: tuple) -> None:
    torch._dynamo.reset()
    leaves = [x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]

    def run(call) -> list[Tensor]:
        results = tensors(call(*leaves))
        grads = torch.autograd.grad(sum(y.float().square().sum() for y in results), wanted)
        return [*results, *grads]

    def call(*args: object) -> Tensor | tuple[Tensor, ...]:
        return ops.dispatch(op, *args)

    ops.load()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(run(compiled), run(call), strict=True):
        assert error(actual, expected) < 1e-5


def counted(op: str, args: tuple) -> int:
    with ops.flop_counter() as counter:
        function(op)(*args)
    return counter.get_total_flops()


def test_an_operator_that_is_defined_during_its_first_call_is_counted() -> None:
    from torch.utils.flop_counter import register_flop_formula

    with ops.flop_counter() as counter:
        doubled = torch.library.custom_op(
            "chimeralab_tests::doubled", lambda x: 2 * x, mutates_args=(), schema="(Tensor x) -> Tensor"
        )
        register_flop_formula(torch.ops.chimeralab_tests.doubled)(lambda x, **_: 7)
        doubled(normal(2, 3))
    assert counter.get_total_flops() == 7


def assert_counted(op: str, args: tuple, cost: Cost, B: int, T: int) -> None:
    assert counted(op, args) == pytest.approx(cost.prefill_flops(T) * B * T, rel=0.02)
    meta = tuple(x.to("meta") if isinstance(x, Tensor) else x for x in args)
    assert counted(op, meta) == counted(op, args)


@pytest.mark.parametrize("G", [1, 4])
@pytest.mark.parametrize("decay", ["none", "head", "scalar", "channel"])
def test_cost_of_gated_linear_attention_is_what_is_counted(decay: str, G: int) -> None:
    inputs = gla_inputs(decay, 256, G=G, K=16, V=32)
    args = (inputs["q"], inputs["k"], inputs["v"], inputs.get("log_decay"))
    cost = ops.gated_linear_attention_cost(4, G, 16, 32, channel_decay=decay == "channel")
    assert_counted("gated_linear_attention", args, cost, 2, 256)


def test_cost_of_taylor_linear_attention_is_what_is_counted() -> None:
    args = (normal(2, 256, 4, 8), normal(2, 256, 4, 8), normal(2, 256, 4, 16), None)
    assert_counted("taylor_linear_attention", args, ops.taylor_linear_attention_cost(4, 8, 16), 2, 256)


@pytest.mark.parametrize(("G", "V", "window"), [(4, 16, None), (2, 16, None), (4, 8, None), (2, 16, 100)])
def test_cost_of_attention_is_what_is_counted(G: int, V: int, window: int | None) -> None:
    args = (normal(2, 256, 4, 16), normal(2, 256, G, 16), normal(2, 256, G, V), True, window, None, None, 0)
    assert_counted("attention", args, ops.attention_cost(4, 16, V, window), 2, 256)


def test_cost_of_short_convolution_is_what_is_counted() -> None:
    assert_counted("short_convolution", (normal(2, 64, 5), normal(5, 4)), ops.short_convolution_cost(5, 4), 2, 64)


@pytest.mark.parametrize("arguments", [{"causal": True}, {"causal": True, "window": 3}, {"causal": False}], ids=str)
def test_blocked_attention_is_a_sound_operator(arguments: dict) -> None:
    from chimeralab_kernels.torch_tier.blocked_attention import blocked_attention

    q, k, v = (normal(2, 5, heads, 4).double().requires_grad_() for heads in (4, 2, 2))
    settings = (arguments["causal"], arguments.get("window", 0), 0.5, 0)
    torch.library.opcheck(blocked_attention, (q, k, v, *settings))


def test_shifted_sum_is_a_sound_operator() -> None:
    from chimeralab_kernels.torch_tier.short_convolution import shifted_sum

    torch.library.opcheck(shifted_sum, (normal(2, 9, 5).requires_grad_(), normal(5, 4).requires_grad_()))


def test_grouped_linear_is_a_sound_operator() -> None:
    from chimeralab_kernels.torch_tier.grouped_linear import _grouped_linear

    ends = torch.tensor([4, 4, 9], dtype=torch.int32)
    torch.library.opcheck(_grouped_linear, (normal(9, 8).requires_grad_(), normal(3, 5, 8).requires_grad_(), ends))


def test_cost_of_grouped_linear_is_what_is_counted() -> None:
    args = (normal(24, 8), normal(3, 5, 8), torch.tensor([4, 4, 24], dtype=torch.int32))
    assert_counted("grouped_linear", args, ops.grouped_linear_cost(8, 5, 3), 1, 8)  # three rows a token


def test_grouped_linear_computes_in_bfloat16_under_autocast() -> None:
    args = (normal(9, 8), normal(3, 5, 8), torch.tensor([4, 4, 9], dtype=torch.int32))
    with torch.autocast("cpu", torch.bfloat16):
        y = function("grouped_linear")(*args)
    assert y.dtype == torch.bfloat16
    assert error(y, function("grouped_linear")(*args)) < 0.02


@pytest.mark.parametrize("tier", ["torch", "reference"])
@pytest.mark.parametrize(
    ("op", "settings"),
    [
        ("attention", {"window": 3}),
        ("attention", {"sinks": normal(4)}),
        ("attention", {"sinks": normal(4), "q_offset": torch.tensor(2)}),
        ("neighborhood_attention", {"grid": (3, 4), "window": (3, 3)}),
    ],
    ids=["window", "sinks", "sinks on the device", "neighbours"],
)
def test_autocast_leaves_attention_of_float32_alone(tier: str, op: str, settings: dict[str, Any]) -> None:
    (kernel,) = (kernel for kernel in ops.kernels(op) if kernel.tier == tier)
    q, k, v = normal(2, 12, 4, 8), normal(2, 12, 2, 8), normal(2, 12, 2, 8)
    expected = kernel.function(q, k, v, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        y = kernel.function(q, k, v, **settings)
    assert y.dtype == torch.float32
    assert error(y, expected) < 1e-6


def test_triton_leaves_head_sizes_that_no_gpu_has_checked_to_the_torch_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_tier, "machine_lacks", lambda _: None)  # as if this were a GPU
    (kernel,) = (kernel for kernel in triton_tier.kernels() if kernel.op == "delta_rule")

    def reason(K: int, V: int, dtype: torch.dtype, by_channel: bool = False) -> str | None:
        q, v = torch.zeros(1, 4, 2, K, dtype=dtype), torch.zeros(1, 4, 2, V, dtype=dtype)
        return kernel.unsupported(q, q, v, None, torch.zeros(1, 4, 2, *[K] * by_channel))

    assert reason(16, 33, torch.bfloat16) is None
    assert reason(129, 33, torch.bfloat16) is None
    assert "up to 128 keys" in (reason(129, 33, torch.bfloat16, by_channel=True) or "")
    assert reason(129, 33, torch.float32, by_channel=True) is None
    assert "up to 256" in (reason(257, 33, torch.float32) or "")

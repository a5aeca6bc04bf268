"""The Triton tier's memory-bound ops against the reference tier in float64; see triton_cases.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from agreement import Inputs, assert_agree, error, outputs_and_gradients
from torch import Tensor

from chimeralab import KernelError, ops
from chimeralab_kernels import reference, triton_tier
from chimeralab_kernels.triton_tier.time_rows import walk

REFERENCE = {kernel.op: kernel.function for kernel in reference.kernels()}
TRITON = {kernel.op: kernel for kernel in triton_tier.kernels()}
DEVICE = "cpu" if triton_tier.INTERPRETED else "cuda"
SCANS = ("diagonal_scan", "selective_scan", "wkv4", "short_convolution")
torch.set_num_threads(1)


def inputs_of(op: str, T: int, *, B: int = 2, D: int = 5, state: bool = True) -> tuple[Inputs, dict[str, Any]]:
    """Tensors by name, and the other arguments."""
    draws = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    def fraction(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draws, dtype=torch.float64)

    angles = fraction(T, 4)
    sums = torch.stack([normal(B, D), fraction(B, D) + 0.5, normal(B, D)], 1)
    selective = {"u": normal(B, T, D), "delta": fraction(B, T, D), "A": -fraction(D, 3), "B": normal(B, T, 3)}
    selective |= {"C": normal(B, T, 3), "skip": normal(D), "z": normal(B, T, D)}
    targets = torch.randint(50, (B * T,), generator=draws).index_fill(0, torch.tensor([0]), -100)
    tensors, others, initial = {
        "rms_norm": ({"x": normal(B, T, 24), "weight": normal(24), "gate": normal(B, T, 24)}, {}, None),
        "add_rms_norm": ({"x": normal(B, T, 24), "other": normal(B, T, 24), "weight": normal(24)}, {}, None),
        "rotary": ({"x": normal(B, T, 3, 8)}, {"cos": angles.cos(), "sin": angles.sin()}, None),
        "swiglu": ({"gate": normal(B, T, 24), "up": normal(B, T, 24)}, {}, None),
        "short_convolution": (
            {"x": normal(B, T, D), "weight": normal(D, 3), "bias": normal(D)},
            {"activation": "silu"},
            normal(B, 2, D),
        ),
        "diagonal_scan": ({"x": normal(B, T, D), "log_decay": -fraction(B, T, D)}, {}, normal(B, D)),
        "selective_scan": (selective, {}, normal(B, D, 3)),
        "wkv4": ({"k": 3 * normal(B, T, D), "v": normal(B, T, D), "decay": -fraction(D), "bonus": normal(D)}, {}, sums),
        "linear_cross_entropy": (
            {"h": normal(B * T, 16), "weight": normal(50, 16)},
            {"target": targets, "z_loss": 0.1},
            None,
        ),
    }[op]
    return tensors | ({"initial_state": initial} if state and initial is not None else {}), others


def check(op: str, inputs: Inputs, others: dict[str, Any], tolerance: float = 2e-5) -> None:
    moved = {name: x.to(DEVICE) for name, x in inputs.items()}
    there = {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in others.items()}
    narrow = {name: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for name, x in there.items()}
    actual = outputs_and_gradients(lambda **given: TRITON[op].function(**given, **narrow), moved, torch.float32)
    expected = outputs_and_gradients(lambda **given: REFERENCE[op](**given, **others), inputs)
    assert_agree(actual, expected, tolerance)


@pytest.mark.parametrize("op", ["rms_norm", "add_rms_norm", "rotary", "swiglu", "linear_cross_entropy", *SCANS])
def test_it_agrees_with_the_reference(op: str) -> None:
    check(op, *inputs_of(op, 9))


def test_the_gradient_of_a_norms_weight_is_added_up_over_many_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import rms_norm

    monkeypatch.setattr(rms_norm, "processors", lambda _: 25)  # 80 programs of 128 rows; 64 are read at a time
    check("rms_norm", *inputs_of("rms_norm", 80 * 128 // 2 - 3))


def test_a_sum_may_have_parts_in_two_dtypes() -> None:
    inputs, _ = inputs_of("add_rms_norm", 9)
    leaves = {name: x.to(torch.float16 if name == "other" else torch.float32) for name, x in inputs.items()}
    leaves = {name: x.to(DEVICE).requires_grad_() for name, x in leaves.items()}
    wide = {name: x.detach().double().cpu().requires_grad_() for name, x in leaves.items()}
    y, total = TRITON["add_rms_norm"].function(**leaves)
    assert y.dtype == total.dtype == torch.float32
    found = torch.autograd.grad(y.sin().sum() + total.sin().sum(), list(leaves.values()))
    assert [x.dtype for x in found] == [x.dtype for x in leaves.values()]
    y, total = REFERENCE["add_rms_norm"](**wide)
    expected = torch.autograd.grad(y.sin().sum() + total.sin().sum(), list(wide.values()))
    for actual, exact in zip(found, expected, strict=True):
        assert error(actual, exact) < (1e-5 if actual.dtype == torch.float32 else 5e-4)


@pytest.mark.parametrize("op", SCANS)
def test_it_agrees_for_one_token_and_without_a_state(op: str) -> None:
    check(op, *inputs_of(op, 1, B=1))
    check(op, *inputs_of(op, 3, B=1, state=False))


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of eight tokens, which a GPU would find too short."""
    for op in SCANS:
        module = import_module(f"chimeralab_kernels.triton_tier.{op}")
        monkeypatch.setattr(module, "walk", partial(walk, shortest=8))


@pytest.mark.parametrize("op", SCANS)
@pytest.mark.usefixtures("short_segments")
def test_it_agrees_over_several_segments(op: str) -> None:
    check(op, *inputs_of(op, 19, B=1, D=3))


def packed(op: str, offsets: list[int], *, state: bool = True) -> tuple[Inputs, dict[str, Any]]:
    """Inputs of sequences laid end to end, with an initial state each."""
    inputs, others = inputs_of(op, offsets[-1], B=1, D=3)
    if state:
        inputs["initial_state"] = inputs_of(op, 1, B=len(offsets) - 1, D=3)[0]["initial_state"]
    else:
        del inputs["initial_state"]
    return inputs, others | {"cu_seqlens": torch.tensor(offsets, dtype=torch.int32)}


@pytest.mark.parametrize("op", SCANS)
def test_it_keeps_packed_sequences_apart(op: str) -> None:
    check(op, *packed(op, [0, 1, 12, 14]))
    check(op, *packed(op, [0, 5], state=False))


@pytest.mark.parametrize("op", SCANS)
@pytest.mark.usefixtures("short_segments")
def test_it_cuts_packed_sequences_into_segments(op: str) -> None:
    check(op, *packed(op, [0, 0, 3, 22, 22, 30, 30]))  # three of them empty


def test_the_loss_agrees_in_several_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import linear_cross_entropy

    monkeypatch.setattr(linear_cross_entropy, "ROWS", 5)  # 18 rows: blocks of 5, 5, 5 and 3
    inputs, others = inputs_of("linear_cross_entropy", 9)
    check("linear_cross_entropy", inputs, others)
    check("linear_cross_entropy", inputs, others | {"reduction": "sum"})


def test_the_gradients_of_a_loss_are_handed_out_once() -> None:
    inputs, others = inputs_of("linear_cross_entropy", 2)
    leaves = [x.float().to(DEVICE).requires_grad_() for x in inputs.values()]
    loss = TRITON["linear_cross_entropy"].function(*leaves, others["target"].to(DEVICE))
    found = torch.autograd.grad(loss, leaves, retain_graph=True)
    before = [x.clone() for x in found]
    with pytest.raises(KernelError, match="have been handed out"):
        torch.autograd.grad(loss, leaves)
    assert all(map(torch.equal, found, before))


def test_a_selective_scan_gives_each_gradient_in_the_dtype_of_its_input() -> None:
    inputs, _ = inputs_of("selective_scan", 5)
    leaves = {name: x.float().to(DEVICE).requires_grad_() for name, x in inputs.items()}
    leaves["u"] = leaves["u"].detach().bfloat16().requires_grad_()
    y = TRITON["selective_scan"].function(**leaves)[0]
    grads = torch.autograd.grad(y.float().sum(), list(leaves.values()), allow_unused=True)
    exact = REFERENCE["selective_scan"](**inputs | {"u": leaves["u"].detach().double().cpu()})[0]
    assert error(y, exact) < 1e-2
    assert {name: x.dtype for name, x in leaves.items()} == dict(zip(leaves, (g.dtype for g in grads), strict=True))


def test_a_diagonal_scan_reads_conjugates() -> None:
    draws = torch.Generator().manual_seed(0)
    x, g = (torch.randn(1, 9, 3, generator=draws, dtype=torch.complex128) for _ in range(2))
    g, start = torch.complex(-g.real.abs(), g.imag), x[:, 0]
    exact = REFERENCE["diagonal_scan"](x.conj(), g.conj(), start.conj())
    found = TRITON["diagonal_scan"].function(*(y.to(DEVICE, torch.complex64).conj() for y in (x, g, start)))
    for actual, expected in zip(found, exact, strict=True):
        assert error(torch.view_as_real(actual), torch.view_as_real(expected.resolve_conj())) < 1e-5


def test_a_selective_scan_agrees_over_several_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    from chimeralab_kernels.triton_tier import selective_scan

    monkeypatch.setattr(selective_scan, "SPAN", 8)
    check("selective_scan", *inputs_of("selective_scan", 19, B=1, D=3))
    check("selective_scan", *packed("selective_scan", [0, 3, 22, 30]))


@pytest.mark.parametrize("offsets", [None, [0, 2, 2, 19]])
@pytest.mark.usefixtures("short_segments")
def test_a_diagonal_scan_agrees_in_complex_numbers(offsets: list[int] | None) -> None:
    T = 19
    packed = None if offsets is None else torch.tensor(offsets)

    def with_complex(scan: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, ...]]:
        def call(x: Tensor, xi: Tensor, g: Tensor, gi: Tensor, s: Tensor, si: Tensor) -> tuple[Tensor, ...]:
            found = scan(torch.complex(x, xi), torch.complex(g, gi), torch.complex(s, si), packed)
            return tuple(torch.view_as_real(y) for y in found)

        return call

    draws = torch.Generator().manual_seed(T)
    names = ("x", "xi", "g", "gi", "s", "si")
    inputs = {name: torch.randn(1, T, 3, generator=draws, dtype=torch.float64) for name in names}
    sequences = 1 if offsets is None else len(offsets) - 1
    inputs |= {"g": -inputs["g"].abs(), "s": inputs["s"][0, :sequences], "si": inputs["si"][0, :sequences]}
    on_device = {name: x.to(DEVICE) for name, x in inputs.items()}
    actual = outputs_and_gradients(with_complex(TRITON["diagonal_scan"].function), on_device, torch.float32)
    assert_agree(actual, outputs_and_gradients(with_complex(REFERENCE["diagonal_scan"]), inputs), 2e-5)


@pytest.mark.parametrize("op", ["rms_norm", "add_rms_norm", "rotary", "swiglu", *SCANS])
def test_strided_inputs_are_read_where_they_lie(op: str) -> None:
    inputs, others = inputs_of(op, 5)
    inputs = {name: x.float().to(DEVICE) for name, x in inputs.items()}
    others = {name: x.float().to(DEVICE) if isinstance(x, Tensor) else x for name, x in others.items()}
    # Every second column of a wider tensor, as a view of a joined projection or of its transpose may be.
    views = {name: torch.stack([x, -x], -1)[..., 0] for name, x in inputs.items()}
    expected, actual = (TRITON[op].function(**given, **others) for given in (inputs, views))
    for a, e in zip(*((y if isinstance(y, tuple) else (y,)) for y in (actual, expected)), strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("op", ["rms_norm", "add_rms_norm", "rotary", "swiglu", "linear_cross_entropy", *SCANS])
def test_dispatch_takes_it_in_one_graph(op: str) -> None:
    inputs, others = inputs_of(op, 5)
    inputs = {name: x.float().to(DEVICE).requires_grad_() for name, x in inputs.items()}
    others = {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in others.items()}
    others = {n: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in others.items()}

    def call(**given: Tensor) -> Tensor:
        y = getattr(ops, op)(**given, **others)
        return y[0] if isinstance(y, tuple) else y

    ops.load()
    with ops.record() as calls:
        expected = call(**inputs)
    assert [made.tier for made in calls] == ["triton"]
    torch.compiler.reset()  # each op is a recompilation of `call`, and eight are too many
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(**inputs)
    assert error(compiled, expected) < 1e-6
    expected_gradients = torch.autograd.grad(expected.sum(), list(inputs.values()))
    for actual, wanted in zip(
        torch.autograd.grad(compiled.sum(), list(inputs.values())), expected_gradients, strict=True
    ):
        assert error(actual, wanted) < 1e-5


def test_what_it_cannot_do_is_said() -> None:
    x = torch.zeros(1, 4, 6, device=DEVICE)
    assert TRITON["short_convolution"].unsupported(x, torch.zeros(6, 5, device=DEVICE)) == "takes up to 4 taps"
    assert "torch.float32" in str(TRITON["swiglu"].unsupported(x.double(), x.double()))
    assert TRITON["swiglu"].unsupported(x, x[:, :1]) == "takes gate and up of one shape"
    assert TRITON["rms_norm"].unsupported(x[:, :0], None) == "needs at least one token"
    # What would broadcast in torch is not read out of bounds.
    assert TRITON["rms_norm"].unsupported(x, None, gate=x[:, :1]) == "takes x and gate of one shape"
    assert TRITON["rms_norm"].unsupported(x, x[0, 0, :1]) == "takes a weight for each column"
    heads, angles = torch.zeros(2, 4, 3, 6, device=DEVICE), torch.zeros(2, 4, 3, device=DEVICE)
    for cos, sin in ((angles, angles), (angles[0], angles[0]), (angles, angles[0])):
        assert TRITON["rotary"].unsupported(heads, cos, sin) is None
    for wrong in (angles[:1], angles[:, :1], angles[0, :1], angles[..., :1]):
        assert "takes angles of" in str(TRITON["rotary"].unsupported(heads, angles, wrong))

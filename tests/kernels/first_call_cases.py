"""What first calls of operators compile, where, and when: with kernels that "compile" to what notes its launch.

No GPU and no compiler, but Triton as it is without its interpreter: test_first_call.py gives it a process of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from agreement import Inputs, delta_inputs, gla_inputs
from gpu_shape_cases import CASES, KEPT, Case, every_case
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from chimeralab_kernels import triton_tier
from chimeralab_kernels.triton_tier import first_call

TRITON = {kernel.op: kernel.function for kernel in triton_tier.kernels()}


class Machine:
    """Stands in for the GPU's driver and for the compiler."""

    count = 0

    def __init__(self) -> None:
        Machine.count += 1  # Triton keeps compiled kernels by device: each machine has none
        self.compiled: list[tuple[str, str]] = []  # by whom, kernel
        self.launched: list[str] = []
        self.rehearsed: list[str] = []
        self.broken: set[str] = set()
        self.held: dict[str, threading.Event] = {}

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return self.count

    def get_current_stream(self, _: int) -> int:
        return 0

    def launcher_cls(self, *_: Any) -> None:
        pass

    def compile(self, src: Any, **_: Any) -> Any:
        name = src.fn.__name__
        in_pool = threading.current_thread().name.startswith("ThreadPoolExecutor")
        self.compiled.append(("pool" if in_pool else "caller", name))
        if in_pool and name in self.held:
            assert self.held[name].wait(30)
        if name in self.broken:
            raise ValueError(f"{name} does not compile")

        def run(*_: Any) -> None:
            self.launched.append(name)

        function = SimpleNamespace(src=src, metadata=None, function=None, packed_metadata=None, run=run)
        function.launch_metadata = lambda *_: None
        return function

    def by(self, whom: str) -> list[str]:
        return [name for who, name in self.compiled if who == whom]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine, rehearse = Machine(), first_call._rehearse

    def note(fn: Any, *given: Any) -> None:
        machine.rehearsed.append(fn.__name__)
        rehearse(fn, *given)

    monkeypatch.setattr(triton.compiler, "compile", machine.compile)
    monkeypatch.setattr(first_call, "_rehearse", note)
    driver.set_active(machine)
    yield machine
    assert not first_call._compiling


def leaves(inputs: Inputs) -> Inputs:
    def dtype(name: str, x: Tensor) -> torch.dtype:
        return x.dtype if not x.is_floating_point() else torch.float32 if name in KEPT else torch.bfloat16

    narrow = {name: x.to(dtype(name, x)) for name, x in inputs.items()}
    return {name: x.requires_grad_(x.is_floating_point()) for name, x in narrow.items()}


def train(case: Case) -> None:
    op, inputs, others = case
    found = TRITON[op](**leaves(inputs), **others)
    y = found[0] if isinstance(found, tuple) else found
    y.backward(torch.ones_like(y))


def check(machine: Machine, case: Case) -> None:
    train(case)
    assert machine.by("caller") == []
    assert len(machine.rehearsed) == 1  # the backward pass with the forward one
    launched, compiled = machine.launched.copy(), machine.compiled.copy()
    assert set(machine.by("pool")) == set(launched) != set()
    train(case)
    assert machine.launched == launched * 2
    assert machine.compiled == compiled
    assert len(machine.rehearsed) == 1


@every_case
def test_a_first_call_compiles_all_of_its_kernels_in_a_pool(case: Any, machine: Machine) -> None:
    check(machine, case(300, 64))


@pytest.mark.parametrize("op", ["gated_linear_attention", "delta_rule"])
@pytest.mark.parametrize("form", ["scalar", "channel"])
def test_so_does_one_of_packed_sequences(op: str, form: str, machine: Machine) -> None:
    make = gla_inputs if op == "gated_linear_attention" else delta_inputs
    inputs = make(form, 300, B=1, K=64, V=64, state=False)
    check(machine, (op, inputs, {"cu_seqlens": torch.tensor([0, 70, 300])}))


def test_so_does_one_cut_into_segments(machine: Machine) -> None:
    check(machine, ("delta_rule", delta_inputs("scalar", 3000, B=1, G=1, H=1, K=64, V=64), {}))
    assert "join_delta_segments" in machine.launched


def test_other_gradients_than_were_foreseen_are_rehearsed_by_themselves(machine: Machine) -> None:
    inputs = leaves(delta_inputs("scalar", 300, K=64, V=64))
    _, final = TRITON["delta_rule"](**inputs)
    final.sum().backward()
    assert machine.rehearsed == ["delta_forward", "delta_backward"]
    assert machine.by("caller") == []


def test_without_gradients_the_backward_pass_is_left_uncompiled(machine: Machine) -> None:
    gate = torch.randn(3, 8)
    TRITON["swiglu"](gate, gate)
    with torch.inference_mode():
        TRITON["rms_norm"](gate, torch.ones(8, requires_grad=True))
    assert machine.compiled == [("pool", "_forward")] * 2


def test_a_launch_waits_for_its_own_kernel_alone(machine: Machine) -> None:
    machine.held["_backward"] = threading.Event()
    gate = torch.randn(3, 8, requires_grad=True)
    y = TRITON["swiglu"](gate, gate)
    assert machine.launched == ["_forward"]
    machine.held["_backward"].set()
    y.sum().backward()
    assert machine.launched == ["_forward", "_backward"]
    assert machine.compiled == [("pool", "_forward"), ("pool", "_backward")]


def test_calls_in_several_threads_compile_a_kernel_once(machine: Machine) -> None:
    machine.held["_forward"] = threading.Event()
    gate = torch.randn(3, 8)
    with ThreadPoolExecutor(4, thread_name_prefix="callers") as callers:
        calls = [callers.submit(TRITON["swiglu"], gate, gate) for _ in range(4)]
        machine.held["_forward"].set()
        for call in calls:
            call.result()
    assert machine.launched == ["_forward"] * 4
    assert machine.by("pool") == ["_forward"]


def test_what_does_not_compile_fails_in_its_launch(machine: Machine) -> None:
    machine.broken.add("_backward")
    for _ in range(2):
        gate = torch.randn(3, 8, requires_grad=True)
        y = TRITON["swiglu"](gate, gate)
        with pytest.raises(ValueError, match="_backward does not compile"):
            y.sum().backward()
    machine.broken.clear()
    y = TRITON["swiglu"](gate, gate)
    y.sum().backward()
    assert machine.launched == ["_forward", "_forward", "_forward", "_backward"]


def test_a_rehearsal_that_finds_no_memory_leaves_kernels_to_their_launches(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chimeralab_kernels.triton_tier import delta_rule

    def full(*_: Any) -> None:
        if len(machine.launched) == 0 and isinstance(first_call._call.get(), ThreadPoolExecutor):
            raise torch.OutOfMemoryError
        whole(*_)

    whole = delta_rule.invert
    monkeypatch.setattr(delta_rule, "invert", full)
    TRITON["delta_rule"](**leaves(delta_inputs("scalar", 300, K=64, V=64)))
    assert machine.by("pool") == ["delta_scores"]
    assert machine.by("caller") == ["invert_systems", "delta_scan"]
    assert machine.launched == ["delta_scores", "invert_systems", "delta_scan"]


def test_while_a_graph_is_captured_kernels_compile_as_they_are_met(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with torch.no_grad():
        TRITON["delta_rule"](**leaves(delta_inputs("scalar", 300, K=64, V=64)))
    assert machine.rehearsed == []
    assert machine.by("pool") == []
    assert machine.launched == machine.by("caller") == ["delta_scores", "invert_systems", "delta_scan"]


def test_a_launch_outside_of_operators_compiles_its_kernel(machine: Machine) -> None:
    from chimeralab_kernels.triton_tier.linear_cross_entropy import _times

    _times[(1,)](torch.ones(3), torch.ones(()), 3, BLOCK=4096)
    assert machine.compiled == [("caller", "_times")]
    assert machine.launched == ["_times"]


def test_compiled_models_rehearse_their_operators(machine: Machine) -> None:
    op, inputs, _ = CASES["gla scalar"](300, 64)
    given = leaves(inputs)
    compiled = torch.compile(lambda **x: TRITON[op](**x)[0], fullgraph=True, backend="aot_eager")
    for _ in range(2):
        compiled(**given).sum().backward()
    assert machine.by("caller") == []
    assert set(machine.by("pool")) == set(machine.launched) != set()
    assert len(machine.rehearsed) <= 2

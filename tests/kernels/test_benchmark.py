"""Times, memory and errors of kernels: what is measured, and that one kernel's trouble is one line."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chimeralab import Kernel, benchmark, ops
from chimeralab.op_cases import OpCase, Size, cases

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import report
from libraries import FLA, TORCH
from side_by_side import SideBySide

CPU, TINY = torch.device("cpu"), Size(1, 40, 4, 8, vocabulary=16)
AT_MOST = benchmark.Ceilings(bytes_per_second=1e9, flops_per_second=1e12)


def case(name: str) -> OpCase:
    return next(case for case in cases() if case.name == name)


def kernel(op: str, tier: str) -> Kernel:
    return next(kernel for kernel in ops.kernels(op) if kernel.tier == tier)


def test_every_op_has_a_case_and_every_peer_is_one_of_a_case() -> None:
    assert {case.op for case in cases()} == set(ops.OPS)
    assert FLA.keys() | TORCH.keys() <= {case.name for case in cases()}


@pytest.mark.parametrize("case", [case for case in cases() if not case.loops], ids=lambda case: case.name)
def test_errors_of_the_torch_tier_in_float32_are_roundings(case: OpCase) -> None:
    found = benchmark.errors(benchmark.exact_kernel(case.op), case, torch.float32, CPU, TINY)
    assert found["y"] < 1e-5
    assert all(error < 1e-4 for error in found.values())
    assert sum(name.startswith("d ") for name in found) >= 1


def test_a_wrong_gradient_shows() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
            ctx.save_for_backward(gate, up)
            return torch.nn.functional.silu(gate) * up

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
            gate, up = ctx.saved_tensors
            return dy * up * gate.sigmoid(), dy * torch.nn.functional.silu(gate)

    found = benchmark.errors(Kernel("swiglu", "mine", Wrong.apply), case("swiglu"), torch.float32, CPU, TINY)
    assert found["y"] < 1e-6
    assert found["d up"] < 1e-6
    assert found["d gate"] > 0.1


def test_an_error_has_no_rounding_of_the_gradient_that_comes_in() -> None:
    def once_rounded(gate: Tensor, up: Tensor) -> Tensor:
        return (torch.nn.functional.silu(gate.double()) * up.double()).bfloat16()

    found = benchmark.errors(Kernel("swiglu", "mine", once_rounded), case("swiglu"), torch.bfloat16, CPU)
    assert all(1.5e-3 < error < 1.8e-3 for error in found.values())  # 2.3e-3 if each side rounded its own


def test_nan_is_the_largest_error() -> None:
    def wrong(gate: Tensor, up: Tensor) -> Tensor:
        return torch.nn.functional.silu(gate) * up + torch.where(up > 2, torch.nan, 0.0)

    found = benchmark.errors(Kernel("swiglu", "mine", wrong), case("swiglu"), torch.float32, CPU, TINY)
    assert found["y"] == float("inf")


def test_the_state_may_be_left_out() -> None:
    def without_state(*args: Any) -> Tensor:
        return kernel("diagonal_scan", "torch").function(*args)[0]

    found = benchmark.errors(Kernel("diagonal_scan", "mine", without_state), case("diagonal_scan"), torch.float32, CPU)
    assert found.keys() == {"y", "d x", "d log_decay"}
    assert all(error < 1e-5 for error in found.values())


def test_the_floor_counts_each_tensor_once_in_each_direction() -> None:
    drawn, size = case("gated_linear_attention, scalar decay"), benchmark.SIZES["S"]
    inputs = [x for x in drawn.arguments(size, CPU, torch.bfloat16) if isinstance(x, Tensor)]
    one = size.rows * size.width * 2  # bytes of q; of k, v and y too
    decays = size.rows * size.heads * 4
    least = benchmark.floor(drawn, size, inputs, inputs[2], AT_MOST)
    assert least.forward_ms == pytest.approx((4 * one + decays) / 1e6)
    assert least.both_ms == pytest.approx((4 * one + 7 * one + 3 * decays) / 1e6)


def test_the_floor_of_the_loss_is_that_of_its_products() -> None:
    drawn, size = case("linear_cross_entropy"), benchmark.SIZES["S"]
    inputs = list(drawn.arguments(size, CPU, torch.bfloat16)[:3])
    quick = replace(AT_MOST, bytes_per_second=1e15)
    least = benchmark.floor(drawn, size, inputs, torch.zeros(()), quick)
    assert least.forward_ms == pytest.approx(2 * size.rows * size.width * size.vocabulary / 1e9)
    assert least.both_ms == pytest.approx(3 * least.forward_ms)


def test_a_kernel_that_fails_is_a_line() -> None:
    def fails(*_: Any) -> Tensor:
        raise ValueError("no such thing")

    found = benchmark.measure(Kernel("swiglu", "mine", fails), case("swiglu"), "S", torch.float32, CPU, AT_MOST)
    assert found.failure == "ValueError: no such thing"
    assert found.both_ms is None
    shy = Kernel("swiglu", "mine", fails, lambda *_: "needs a CUDA device")
    assert benchmark.measure(shy, case("swiglu"), "S", torch.float32, CPU, AT_MOST).failure == "needs a CUDA device"


def test_figures_are_kept_and_renewed(tmp_path: Path) -> None:
    found = benchmark.time_kernels(["swiglu"])
    timed = [m for m in found.measurements if m.kernel == "torch"]
    assert len(timed) == 1
    assert 0 < timed[0].forward_ms < timed[0].both_ms
    path = tmp_path / "times.json"
    found.save(path)
    read = benchmark.KernelTimes.load(path)
    assert read == found
    newer = replace(found, measurements=[replace(timed[0], both_ms=1.0)])
    joined = read.joined(newer)
    assert len(joined.measurements) == len(found.measurements)
    assert [m.both_ms for m in joined.measurements if m.kernel == "torch"] == [1.0]
    assert read.joined(replace(newer, device="another")).measurements == newer.measurements


CHILD = """
import sys, time
name = sys.argv[1]
if name == "crashes":
    print("bad luck"); sys.exit(3)
if name == "hangs":
    time.sleep(60)
print("ready", flush=True)
sys.stdin.readline()
print('{"case": "%s"}' % name, flush=True)
print("done", flush=True)
"""


def test_processes_that_crash_or_hang_leave_the_others_alone() -> None:
    processes = SideBySide([sys.executable, "-c", CHILD], {}, jobs=3, prepare=1.5, seconds=3)
    processes.run(["hangs", "a", "crashes", "b"])
    assert sorted(found["case"] for found in processes.outcomes) == ["a", "b"]
    assert processes.troubles == {"crashes": "its process ended: bad luck", "hangs": "not ready after 2 s"}


def test_the_table_compares_ours_with_the_best_peer() -> None:
    def measured(kernel: str, both: float, size: str = "M") -> dict[str, Any]:
        found = benchmark.Measurement("rms_norm", "", kernel, size, "bfloat16", both / 3, both, both, both)
        return vars(replace(found, floor_forward_ms=0.1, floor_both_ms=0.2, first_call_seconds=1.0))

    table = {
        **dict.fromkeys(("device", "torch", "dtype", "date"), "x"),
        **dict.fromkeys(("bytes_per_second", "flops_per_second", "seconds"), 1.0),
        "troubles": {"swiglu": "its process ended"},
        "measurements": [
            measured("torch", 8.0),
            measured("fla", 3.0),
            measured("triton", 1.0),
            measured("fla", 4, "L"),
        ],
    }
    assert {
        key: (mine["kernel"], peer["kernel"], ratio) for key, (mine, peer, ratio) in report.ratios(table).items()
    } == {("rms_norm", "M"): ("triton", "fla", 3.0)}
    assert report.means(table) == {"M": pytest.approx(3.0)}
    shown = report.text(json.loads(json.dumps(table)))
    assert "3.00 × fla" in shown
    assert "its process ended" in shown
    assert report.page(table).count("<script") >= 2

"""`chimeralab kernels`: what is listed, timed and tuned."""

from __future__ import annotations

import json
from pathlib import Path

from called import Call

from chimeralab import Lab, ops


def test_kernels_are_listed_as_json_for_every_op(call: Call) -> None:
    assert {kernel["op"] for kernel in json.loads(call("kernels", "--json").out)} == set(ops.OPS)


def test_kernels_are_timed_and_the_figures_kept(call: Call, tmp_path: Path) -> None:
    told = json.loads(call("kernels", "--bench", "--op", "swiglu", "--home", str(tmp_path), "--json").out)
    (torch_tier,) = (m for m in told["measurements"] if m["kernel"] == "torch")
    assert torch_tier["both_ms"] > 0
    assert torch_tier["errors"]["y"] < 1e-6
    with Lab.open(tmp_path) as lab:
        (entry,) = (kernel for kernel in lab.kernels() if (kernel.op, kernel.tier) == ("swiglu", "torch"))
    assert [time.both_ms for time in entry.times] == [torch_tier["both_ms"]]


def test_an_op_that_does_not_exist_is_not_timed(call: Call, tmp_path: Path) -> None:
    answer = call("kernels", "--bench", "--op", "swigluu", "--home", str(tmp_path))
    assert answer.code == 2
    assert "did you mean 'swiglu'?" in answer.err


def test_tiles_of_another_gpu_are_taken_and_given_on(call: Call, tmp_path: Path) -> None:
    given, home = tmp_path / "given.json", ("--home", str(tmp_path / "home"))
    given.write_text('{"architectures": {"sm86": {"diagonal_scan": {"bfloat16": {"block": 64}}}}}')
    assert call("kernels", "tune", "--from", str(given), "--to", str(tmp_path / "out.json"), *home).code == 0
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(given.read_text())
    given.write_text(given.read_text().replace("block", "blcok"))
    refused = call("kernels", "tune", "--from", str(given), *home)
    assert refused.code == 2
    assert "did you mean 'block'?" in refused.err
    assert "No kernel that serves here" in call("kernels", "tune", "--op", "diagonal_scan", *home).out  # on a CPU

"""Whatever `chimeralab kernels tune` may choose computes the same.

`test_triton_kernels.py` runs this file in Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch

from chimeralab import ops
from chimeralab.benchmark import errors
from chimeralab.op_cases import OpCase, Size, cases
from chimeralab_kernels import triton_tier

TINY = Size(1, 7, 1, 64)
DEVICE = torch.device("cpu" if triton_tier.INTERPRETED else "cuda")
TRITON = {kernel.op: kernel for kernel in triton_tier.kernels()}
torch.set_num_threads(1)


@pytest.mark.parametrize("op", [op for op, kernel in TRITON.items() if kernel.tunings])
def test_every_choice_computes_the_same(op: str) -> None:
    offered = {tuning.name: (*tuning.choices, tuning.small) for tuning in TRITON[op].tunings}
    asked = set()
    for case in cases(op):
        if case.form not in ("complex", "decay by channel, bonus"):
            asked |= _check(case, offered)
    assert asked >= offered.keys() - {"diagonal_scan.complex"}


def _check(case: OpCase, offered: dict[str, tuple]) -> set[str]:
    with ops.tiles.asked() as asked:
        errors(TRITON[case.op], case, torch.float32, DEVICE, TINY)
    for i in range(max(len(offered[name]) for name, _ in asked)):  # of every tuning the i-th choice at once
        with ops.tiles.trying({(name, shape): offered[name][i % len(offered[name])] for name, shape in asked}):
            found = errors(TRITON[case.op], case, torch.float32, DEVICE, TINY)
        assert max(found.values()) < 1e-5
    return {name for name, _ in asked}

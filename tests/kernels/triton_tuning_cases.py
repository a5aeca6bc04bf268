"""Whatever `chimeralab kernels tune` may choose computes the same.

`test_triton_kernels.py` runs this file in Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch
from launches import launches

from chimeralab import ops
from chimeralab.benchmark import errors
from chimeralab.op_cases import OpCase, Size, cases
from chimeralab_kernels import triton_tier

HEAD, WIDTH = Size(1, 17 if triton_tier.INTERPRETED else 70, 1, 128), Size(1, 7, 2, 128)
"""Of a head and two chunks, and of channels without heads: the choices of a tile cut both differently."""
DEVICE = torch.device("cpu" if triton_tier.INTERPRETED else "cuda")
DTYPE, TOLERANCE = (torch.float32, 1e-5) if triton_tier.INTERPRETED else (torch.bfloat16, 8e-3)  # as `tune` takes it
TRITON = {kernel.op: kernel for kernel in triton_tier.kernels()}
torch.set_num_threads(1)


@pytest.mark.parametrize("op", [op for op, kernel in TRITON.items() if kernel.tunings])
def test_every_choice_computes_the_same(op: str) -> None:
    offered = {tuning.name: list(tuning.choices) for tuning in TRITON[op].tunings}
    if triton_tier.INTERPRETED:  # a GPU with room for the choices never takes the small tiles
        for tuning in TRITON[op].tunings:
            offered[tuning.name] += [tuning.small] if tuning.small else []
    asked = set()
    for case in cases(op):
        if case.form not in ("complex", "decay by channel, bonus"):
            asked |= _check(case, offered)
    assert asked >= offered.keys() - {"diagonal_scan.complex"}


def _check(case: OpCase, offered: dict[str, list]) -> set[str]:
    size = HEAD if case.op == "gated_linear_attention" else WIDTH
    with ops.tiles.asked() as asked:
        errors(TRITON[case.op], case, DTYPE, DEVICE, size)
    blocks, taken = set(), set()
    for i in range(max(len(offered[name]) for name, _ in asked)):  # of every tuning the i-th choice at once
        chosen = {key: offered[key[0]][i % len(offered[key[0]])] for key in asked}
        with ops.tiles.trying(chosen), launches() as made:
            found = errors(TRITON[case.op], case, DTYPE, DEVICE, size)
        assert found
        assert all(error < TOLERANCE for error in found.values()), found
        taken.add(str([[(k, v) for k, v in launch.options.items() if isinstance(v, int)] for launch in made]))
        blocks.add(str({key: [(k, v) for k, v in values.items() if "block" in k] for key, values in chosen.items()}))
    assert len(taken) >= len(blocks) > 1
    return {name for name, _ in asked}

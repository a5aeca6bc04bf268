"""Every op that has a Triton kernel in half precision, as calls take it, against the torch tier in float64.

What half precision has of its own: its roundings, chunks of 64 tokens, heads filled up, tiles of its own.
`test_triton_kernels.py` runs this file in Triton's interpreter, which is taught bfloat16 for it.
"""

from __future__ import annotations

import pytest
import torch
from gpu_shape_cases import CASES, Case, check, check_norm_of_a_sum, sliced

from chimeralab_kernels import triton_tier

if triton_tier.INTERPRETED:
    from bfloat16_interpreter import teach

    teach()

BY_TOKEN = ("short_convolution", "diagonal_scan", "selective_scan", "wkv4")  # slow in the interpreter
every_matrix_state = pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("gla", "delta"))])


@pytest.mark.parametrize("D", [24, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_it_agrees(name: str, dtype: torch.dtype, D: int) -> None:
    check(CASES[name](9 if name in BY_TOKEN else 70, D), dtype)


@pytest.mark.parametrize("D", [24, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_norm_of_a_sum_agrees(dtype: torch.dtype, D: int) -> None:
    check_norm_of_a_sum(70, D, dtype)


@every_matrix_state
def test_it_reads_slices_of_odd_width(name: str) -> None:
    check(CASES[name](20, 70), torch.bfloat16, sliced)


def packed(case: Case) -> Case:
    """The two sequences behind one another, cut anew: one is empty, one is a single token."""
    op, inputs, others = case
    by_token = {name: x for name, x in inputs.items() if x.dim() > 2 and name not in ("initial_state", "weight")}
    whole = {name: x.flatten(0, 1).unsqueeze(0) for name, x in by_token.items()}
    state = inputs["initial_state"]
    whole["initial_state"] = torch.cat([state, state, state[:1]])
    tokens = whole["v"].shape[1]
    return op, inputs | whole, others | {"cu_seqlens": torch.tensor([0, 3, 3, 4, 90, tokens])}


@every_matrix_state
def test_it_keeps_packed_sequences_apart(name: str) -> None:
    check(packed(CASES[name](70, 32)), torch.bfloat16)


@every_matrix_state
def test_heads_share_keys(name: str) -> None:
    op, inputs, others = CASES[name](70, 32)
    check((op, inputs | {name: inputs[name][:, :, :1] for name in ("q", "k")}, others), torch.bfloat16)

"""A small typical call of each op: what the Kernels page and `chimeralab kernels` try on this machine."""

from __future__ import annotations

from typing import Any

import torch

from chimeralab import ops
from chimeralab.op_cases import SMALL, cases
from chimeralab.plugins import registry


def sample(op: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Arguments of one call, in the order in which the op hands them to a kernel."""
    return cases(op)[0].arguments(SMALL, device, dtype)


def kernel_entries() -> list[dict[str, Any]]:
    """Every kernel, best first within its op: where it comes from, and why it cannot serve here ("": it can)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    entries = []
    for op in ops.OPS:
        arguments = sample(op, device, dtype)
        for kernel in ops.kernels(op):
            package = registry().owner("kernel", (op, kernel.tier)).package
            reason = kernel.unsupported(*arguments) or ""
            entries.append(
                {"op": op, "tier": kernel.tier, "priority": kernel.priority, "package": package, "reason": reason}
            )
    return entries

"""The contract of a kernel: one implementation of one op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from chimeralab.contracts.tuning import Tuning

Tier = Literal["reference", "torch", "triton"]
PRIORITY: dict[str, int] = {"reference": 0, "torch": 10, "triton": 20}


@dataclass(frozen=True)
class Kernel:
    """An implementation of an op, and where it works.

    `function` takes exactly what the op in `chimeralab.ops` takes, by position, and returns the same.
    `unsupported` takes the same and returns why it cannot serve these arguments ("needs a CUDA device"), or None.
    Both must be traceable by torch.compile. Dispatch takes the highest `priority` that is supported;
    a third party's faster kernel sets one above 20.
    """

    op: str
    tier: str  # reference, torch, triton, or a name of its own
    function: Callable[..., Any]
    unsupported: Callable[..., str | None] = lambda *_: None
    priority: int = -1
    source: str = ""
    tunings: tuple[Tuning, ...] = field(default=(), compare=False)  # tiles that `chimeralab kernels tune` may choose

    def __post_init__(self) -> None:
        if self.priority < 0:
            object.__setattr__(self, "priority", PRIORITY.get(self.tier, 30))

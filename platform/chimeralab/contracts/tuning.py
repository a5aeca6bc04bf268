"""What a kernel leaves open for each kind of GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tuning:
    """Sizes of tiles, warps or stages that a kernel reads by `ops.tiles.chosen` before each launch.

    Any choice must compute the same. `choices` are tried in place of the kernel's own values, which suit a GPU with as
    much shared memory as Hopper's; few, since each is compiled. `small` holds for GPUs with less.
    """

    name: str  # unique among all kernels: "gated_linear_attention.output"
    choices: tuple[Mapping[str, int], ...]
    small: Mapping[str, int] = field(default_factory=dict)

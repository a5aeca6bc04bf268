"""What a lab knows of kernels on this machine: which serve, how quick they are, and the tiles that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chimeralab.scheduling.home import Home

if TYPE_CHECKING:
    from chimeralab.benchmark import KernelTimes, Measurement, Trial


@dataclass(frozen=True)
class KernelEntry:
    """A kernel of an op; `reason` says why it cannot serve on this machine, "" when it can."""

    op: str
    tier: str
    priority: int
    package: str
    reason: str
    times: tuple[Measurement, ...] = ()  # as `time_kernels` last measured them on this machine


class KernelRecords:
    """The kernels of every op, their times and tiles, as the home keeps them. `Lab` is one."""

    home: Home

    def kernels(self) -> list[KernelEntry]:
        """Kernels by op, best first, each tried with a small typical call on this machine."""
        from chimeralab.benchmark import KernelTimes
        from chimeralab.op_samples import kernel_entries

        times: dict[tuple[str, str], list[Measurement]] = {}
        for measured in KernelTimes.load(self.home.kernel_times).measurements:
            times.setdefault((measured.op, measured.kernel), []).append(measured)
        return [
            KernelEntry(**entry, times=tuple(times.get((entry["op"], entry["tier"]), ()))) for entry in kernel_entries()
        ]

    def time_kernels(
        self, names: Sequence[str] = (), size: str | None = None, report: Callable[[Measurement], None] = lambda _: None
    ) -> KernelTimes:
        """Time the kernels of the ops named, or of all, on this machine, and keep the figures in the home.

        Raises:
            SpecError: an op or a size that does not exist.
        """
        from chimeralab import ops
        from chimeralab.benchmark import KernelTimes, time_kernels

        ops.tiles.load(self.home.cache / ops.tiles.FILE)
        found = time_kernels(names, size, report)
        KernelTimes.load(self.home.kernel_times).joined(found).save(self.home.kernel_times)
        return found

    def tune_kernels(
        self, names: Sequence[str] = (), sizes: Sequence[str] = (), report: Callable[[Trial], None] = lambda _: None
    ) -> int:
        """Choose the tiles of the kernels of the ops named, or of all, by their speed on this machine.

        They are kept in the home's cache, and runs take them from then on. Returns how many differ from the kernels'
        own.

        Args:
            sizes: names of `benchmark.SIZES`; M and L on a GPU, S elsewhere if not given.

        Raises:
            SpecError: an op or a size that does not exist.
        """
        from chimeralab import benchmark, ops

        ops.tiles.load(self.home.path / "no_such_file")  # the kernels' own are what choices must be quicker than
        found = benchmark.tune(names, benchmark.sizes(sizes), report)
        ops.tiles.add(self.home.cache / ops.tiles.FILE, {ops.tiles.architecture(): found})
        return sum(len(by_shape) for by_shape in found.values())

    def read_tiles(self, path: Path) -> None:
        """Take tiles that were chosen elsewhere into the home's cache, of whatever architecture.

        Raises:
            SpecError: the file is none of tiles, or names what no kernel leaves open.
        """
        from chimeralab import ops

        ops.tiles.add(self.home.cache / ops.tiles.FILE, ops.tiles.read(path))

    def write_tiles(self, path: Path) -> None:
        """Write the tiles of the home's cache into a file."""
        from chimeralab import ops

        kept = self.home.cache / ops.tiles.FILE
        path.unlink(missing_ok=True)
        ops.tiles.add(path, ops.tiles.read(kept) if kept.exists() else {})

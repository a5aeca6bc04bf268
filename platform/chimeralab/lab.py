"""Lab: the one facade. The command line, the dashboard and a notebook use nothing else.

with Lab.open() as lab:
    stack = lab.compose("every(3, attention, offset=2, base=mamba2) x6", d_model=256)
    print(lab.cost(stack).total_params)
    run = lab.submit(RunSpec(stack=stack))
    lab.wait(run)
    print(lab.compare([run]).rows[0].bits_per_byte)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from chimeralab.composing import Composing, PaletteEntry, TaskEntry
from chimeralab.errors import ClusterError, ResourceError, SpecError
from chimeralab.kernel_records import KernelEntry, KernelRecords
from chimeralab.run_records import RunRecords
from chimeralab.runs import RunSpec
from chimeralab.scheduling.home import Home
from chimeralab.scheduling.submission import new_run
from chimeralab.store import UNFINISHED, RunFilter, RunRow, Store, with_password
from chimeralab.study_records import StudyRecords
from chimeralab.sweep_records import SweepRecords
from chimeralab.waiting import SILENT_SECONDS, wait_for
from chimeralab.weight_records import WeightRecords

if TYPE_CHECKING:
    from chimeralab.contracts import Page
    from chimeralab.plugins import PluginInfo
    from chimeralab.scheduling.cluster import Cluster
    from chimeralab.stack.cost import CostReport


@dataclass(frozen=True)
class ClusterStatus:
    """The cluster that works for this store, as it last reported."""

    address: str
    cpus: float
    gpus: float
    memory: float  # bytes
    nodes: int
    shapes: list[dict[str, float]]  # what a node of it may have: "CPU", "GPU", "memory"
    alive: bool


class Lab(Composing, WeightRecords, RunRecords, SweepRecords, StudyRecords, KernelRecords):
    """A store, and (where one is wanted) a cluster that works on its queue. Use it as a context manager."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home, self.store = home, store
        self.cluster_connection: Cluster | None = None

    @classmethod
    def open(
        cls,
        home: Path | str | None = None,
        *,
        store: str | None = None,
        cluster: str | None = None,
        cpus: int | None = None,
        gpus: int | None = None,
    ) -> Self:
        """Open the lab in a folder.

        Args:
            home: default `$CHIMERALAB_HOME`, then `~/.chimeralab`.
            store: a database URL; default: `$CHIMERALAB_STORE`, then SQLite in the home. Its password may stand in
                the file that `$CHIMERALAB_STORE_PASSWORD_FILE` names.
            cluster: None reads and submits without one; "embedded" starts (or finds) the home's own;
                anything else is the address of a Ray cluster.
            cpus, gpus: what an embedded cluster offers; default: what the machine has.

        Raises:
            StoreError, ClusterError
        """
        place = Home.open(home)
        store = store or os.environ.get("CHIMERALAB_STORE")
        password = os.environ.get("CHIMERALAB_STORE_PASSWORD_FILE")
        url = with_password(store, Path(password)) if store and password else store or place.store_url
        lab = cls(place, Store.open(url))
        if cluster is not None:
            try:
                lab.connect(cluster, cpus=cpus, gpus=gpus)
            except ClusterError:
                lab.close()
                raise
        return lab

    def connect(self, cluster: str, *, cpus: int | None = None, gpus: int | None = None) -> None:
        """Connect to a cluster, as `open` does, and start its dispatcher where it does not run.

        Do it again when the cluster was silent: after its head was started anew it has neither.

        Raises:
            ClusterError
        """
        from chimeralab.scheduling import connect, embedded
        from chimeralab.scheduling.dispatcher import ensure_dispatcher

        own = cluster == "embedded"
        connection = embedded(self.home, cpus=cpus, gpus=gpus) if own else connect(self.home, cluster)
        self.cluster_connection = connection
        ensure_dispatcher(self.store.url, str(self.home.path), connection.identity, connection.address)

    @staticmethod
    def stop_cluster(home: Path | str | None = None) -> bool:
        """Stop a home's embedded cluster that was left running; False when none runs. Its runs go on later."""
        from chimeralab.scheduling.cluster import stop_embedded

        return stop_embedded(Home.open(home))

    def close(self, *, keep_cluster: bool = False) -> None:
        """Close the store and leave the cluster. An embedded one that nobody else uses is stopped, unless it is to be
        kept, or went on without anybody before.

        Runs that were active go on when the cluster is started again.
        """
        if self.cluster_connection is not None:
            self.cluster_connection.leave(keep=keep_cluster)
            self.cluster_connection = None
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- run ------------------------------------------------------------------------------------------------

    def preview(self, spec: RunSpec) -> CostReport:
        """Everything that `submit` checks, and what the run will cost; nothing is queued."""
        from chimeralab.runs.check import check, check_memory

        report = check(spec)
        shapes = [shape for cluster in self._clusters() if cluster.alive for shape in cluster.shapes]
        if shapes:
            room = max(shape["memory"] for shape in _fitting(spec, shapes))
            if spec.resources.gpus == 0 and room:
                check_memory(report, int(room), "a node of the cluster")
        if spec.resources.gpus > 0:
            memory = _gpu_memory()
            if memory is not None:
                check_memory(report, int(memory * min(1.0, spec.resources.gpus)), "the GPU")
        return report

    def submit(self, spec: RunSpec) -> int:
        """Check a run and queue it; returns its id.

        Raises:
            SpecError, DataError, KernelError, ResourceError: nothing was queued.
        """
        self.preview(spec)
        return self.store.create_run(new_run(spec))

    def wait(
        self,
        run_ids: int | Sequence[int],
        *,
        timeout: float | None = None,
        watch: Callable[[list[RunRow]], None] = lambda _: None,
        poll: float = 0.5,
    ) -> list[RunRow]:
        """Wait until all have ended. `watch` sees their rows at each poll. A store that is away is waited for.

        Raises:
            TimeoutError: after `timeout` seconds.
            StoreUnavailable: the store was away for ten minutes.
        """
        ids = [run_ids] if isinstance(run_ids, int) else list(run_ids)

        def look() -> tuple[list[RunRow] | None, str]:
            rows = [self.store.run(run_id) for run_id in ids]
            watch(rows)
            ended = all(row.status not in UNFINISHED for row in rows)
            return (rows if ended else None), ", ".join(f"run {row.id} is {row.status}" for row in rows)

        return wait_for(self.store, look, timeout=timeout, poll=poll)

    def cancel(self, run_id: int) -> str:
        """Cancel a queued run at once, ask a running one to stop; returns its status."""
        status = self.store.request_cancel(run_id)
        if status == "cancelled":  # at once: no dispatcher will tell the plugins
            from chimeralab.plugins import registry

            registry().notify("run_finished", run_id=run_id, status=status, reason="")
        return status

    def retry(self, run_id: int) -> None:
        """Queue a failed or cancelled run again; it goes on from its newest checkpoint."""
        self.store.retry(run_id)

    # -- look around ----------------------------------------------------------------------------------------

    def plugins(self) -> list[PluginInfo]:
        from chimeralab.plugins import registry

        return registry().all()

    def pages(self) -> list[Page]:
        from chimeralab.plugins import registry

        return list(registry().pages.values())

    def cluster(self) -> ClusterStatus | None:
        """The cluster that works for this store, as it last reported; None when none ever did."""
        return next(iter(self._clusters()), None)

    def _clusters(self) -> list[ClusterStatus]:
        """All that ever worked for this store, the liveliest first."""
        return [
            ClusterStatus(
                address=row.address,
                cpus=row.resources.get("CPU", 0.0),
                gpus=row.resources.get("GPU", 0.0),
                memory=row.resources.get("memory", 0.0),
                nodes=int(row.resources.get("nodes", 0)),
                shapes=row.resources.get("shapes", []),
                alive=time.time() - row.heartbeat_at < SILENT_SECONDS,
            )
            for row in self.store.clusters()
        ]


def _fitting(spec: RunSpec, shapes: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The nodes that have all that a run asks for.

    Raises:
        ResourceError: none has.
    """
    gpus, cpus = spec.resources.gpus, spec.resources.cpus
    for kind, asked in (("GPU", gpus), ("CPU", cpus)):
        most = max(shape[kind] for shape in shapes)
        if asked > most:
            raise ResourceError(
                f"{asked:g} {kind}s are asked for and no node of the cluster has more than {most:g}",
                place=f"resources.{kind.lower()}s",
                remedy=f"Ask for fewer, or add a node with more {kind}s to the cluster",
            )
    found = [shape for shape in shapes if shape["GPU"] >= gpus and shape["CPU"] >= cpus]
    if not found:
        raise ResourceError(
            f"no node of the cluster has {gpus:g} GPUs and {cpus:g} CPUs",
            place="resources",
            remedy="Ask for fewer of one, or add such a node to the cluster",
        )
    return found


def _gpu_memory() -> int | None:
    """Bytes of this machine's first GPU; None without one (the cluster's GPUs are then elsewhere)."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


__all__ = [
    "UNFINISHED",
    "ClusterStatus",
    "KernelEntry",
    "Lab",
    "PaletteEntry",
    "RunFilter",
    "SpecError",
    "TaskEntry",
]

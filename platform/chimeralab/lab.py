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
from typing import TYPE_CHECKING, Any, Literal, Self

from chimeralab.errors import ClusterError, RequestError, ResourceError, SpecError
from chimeralab.run_records import RunRecords
from chimeralab.runs import RunSpec
from chimeralab.scheduling.home import Home
from chimeralab.scheduling.submission import new_run
from chimeralab.stack import StackSpec, parse, to_text
from chimeralab.store import RunFilter, RunRow, Store, with_password
from chimeralab.study_records import StudyRecords
from chimeralab.sweep_records import SweepRecords

if TYPE_CHECKING:
    from chimeralab.benchmark import KernelTimes, Measurement, Trial
    from chimeralab.contracts import Page, Preset
    from chimeralab.plugins import PluginInfo
    from chimeralab.scheduling.cluster import Cluster
    from chimeralab.stack.cost import CostReport
    from chimeralab.stack.dialects import Imported
    from chimeralab.stack.weights import Converted

ENDED = ("completed", "failed", "cancelled", "pruned")
ALIVE_SECONDS = 30.0  # a cluster that was silent for longer counts as gone


@dataclass(frozen=True)
class PaletteEntry:
    """A mixer or feed-forward that can be put into a stack; `schema` is the JSON schema of its options."""

    kind: Literal["mixer", "feed_forward"]
    name: str
    title: str
    family: str
    summary: str
    color: str
    source: str
    package: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class TaskEntry:
    """A task that a run can train on."""

    name: str
    title: str
    summary: str
    metric: str
    higher_is_better: bool
    schema: dict[str, Any]


@dataclass(frozen=True)
class KernelEntry:
    """A kernel of an op; `reason` says why it cannot serve on this machine, "" when it can."""

    op: str
    tier: str
    priority: int
    package: str
    reason: str
    times: tuple[Measurement, ...] = ()  # as `time_kernels` last measured them on this machine


@dataclass(frozen=True)
class ClusterStatus:
    """The cluster that works for this store, as it last reported."""

    address: str
    cpus: float
    gpus: float
    memory: float  # bytes
    nodes: int
    alive: bool


class Lab(RunRecords, SweepRecords, StudyRecords):
    """A store, and (where one is wanted) a cluster that works on its queue. Use it as a context manager."""

    def __init__(self, home: Home, store: Store, cluster: Cluster | None = None, *, owns_cluster: bool = False) -> None:
        self.home, self.store, self.cluster_connection = home, store, cluster
        self._owns_cluster = owns_cluster

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
            store: a database URL; default: SQLite in the home. Its password may stand in the file that
                `$CHIMERALAB_STORE_PASSWORD_FILE` names.
            cluster: None reads and submits without one; "embedded" starts (or finds) the home's own;
                anything else is the address of a Ray cluster.
            cpus, gpus: what an embedded cluster offers; default: what the machine has.

        Raises:
            StoreError, ClusterError
        """
        place = Home.open(home)
        password = os.environ.get("CHIMERALAB_STORE_PASSWORD_FILE")
        url = with_password(store, Path(password)) if store and password else store or place.store_url
        opened = Store.open(url)
        if cluster is None:
            return cls(place, opened)
        from chimeralab.scheduling import connect, embedded

        try:
            connection, started = (
                embedded(place, cpus=cpus, gpus=gpus) if cluster == "embedded" else (connect(cluster), False)
            )
        except ClusterError:
            opened.close()
            raise
        lab = cls(place, opened, connection, owns_cluster=started)
        from chimeralab.scheduling.dispatcher import ensure_dispatcher

        try:
            ensure_dispatcher(opened.url, str(place.path), place.identity, connection.address)
        except ClusterError:
            lab.close()
            raise
        return lab

    @staticmethod
    def stop_cluster(home: Path | str | None = None) -> bool:
        """Stop a home's embedded cluster that was left running; False when none runs. Its runs go on later."""
        from chimeralab.scheduling.cluster import stop_embedded

        return stop_embedded(Home.open(home))

    def close(self, *, keep_cluster: bool = False) -> None:
        """Close the store and leave the cluster; one that this lab started is stopped, unless it is to be kept.

        Runs that were active go on when the cluster is started again.
        """
        if self.cluster_connection is not None:
            if self._owns_cluster and not keep_cluster:
                self.cluster_connection.stop()
            else:
                self.cluster_connection.disconnect()
            self.cluster_connection = None
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- compose --------------------------------------------------------------------------------------------

    def palette(self) -> list[PaletteEntry]:
        """Every installed mixer and feed-forward."""
        from chimeralab.plugins import registry

        known = registry()
        return [
            PaletteEntry(
                kind,  # type: ignore[arg-type]
                cls.name,
                cls.title or cls.name,
                cls.family or "Other",
                cls.summary,
                cls.color or _color(cls.name),
                cls.source,
                known.owner(label, cls.name).package,
                cls.Config.model_json_schema(),
            )
            for kind, label, found in (
                ("mixer", "mixer", known.mixers),
                ("feed_forward", "feed-forward", known.feed_forwards),
            )
            for cls in found.values()
        ]

    def presets(self) -> list[Preset]:
        """Every preset whose parts are installed. Its `sizes` are presets too, by their own names."""
        from chimeralab.plugins import registry
        from chimeralab.stack.branch import mixers_of

        known = registry()
        return [
            preset
            for preset in known.presets.values()
            if not preset.size_of
            and all(
                known.mixers.keys() >= {*mixers_of(layer)} and layer.ffn in known.feed_forwards
                for layer in parse(preset.pattern)
            )
        ]

    def tasks(self) -> list[TaskEntry]:
        from chimeralab.plugins import registry

        return [
            TaskEntry(
                cls.name,
                cls.title or cls.name,
                cls.summary,
                cls.metric,
                cls.higher_is_better,
                cls.Config.model_json_schema(),
            )
            for cls in registry().tasks.values()
        ]

    def compose(self, text: str, **settings: Any) -> StackSpec:
        """Text (or a preset's name) → a checked stack. `settings`: those of `StackSpec`.

        Raises:
            PatternError: the text cannot be read. SpecError: a layer cannot be built.
        """
        from chimeralab.stack.compose import compose

        return compose(text, **settings)

    def import_stack(self, source: str) -> Imported:
        """Another library's pattern, expanded: `megatron:M-M*-`, `hf:path/to/config.json`, `fla:`, `olmo:`,
        `striped-hyena:`, `h-net:`. Look at its `text` and `notes`, then take its `stack()`.

        Raises:
            PatternError, SpecError: the source cannot be read. Whether its mixers are installed is `check`'s to say.
        """
        from chimeralab.stack.dialects import read_source

        return read_source(source)

    def import_text(self, dialect: str, text: str) -> Imported:
        """`import_stack` of what a stranger wrote: `text` is a pattern or JSON, and no file is opened.

        Raises:
            PatternError, SpecError: the dialect is unknown, or the text cannot be read.
        """
        from chimeralab.stack.dialects import read_text

        return read_text(dialect, text)

    def import_weights(self, source: Path | str, to: Path | str) -> Converted:
        """A transformers checkpoint (config.json and safetensors) → a folder that a run can start from.

        Raises:
            DataError: files or tensors are missing, unknown, of another shape, pickled or damaged.
            SpecError: the model computes something that the lab does not. Nothing is written then.
        """
        from chimeralab.stack.weights import import_weights

        return import_weights(source, to)

    def export_weights(
        self,
        source: int | Path | str,
        to: Path | str,
        *,
        checkpoint: Literal["best", "newest"] = "best",
        family: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    ) -> Converted:
        """A run's checkpoint, or a folder of weights → a checkpoint that transformers loads.

        Args:
            source: a run's id, or a folder with stack.json.
            checkpoint: which of the run's; the newest where there is no best.
            family: a model type; default: the first whose configuration says exactly this stack.
            dtype: of the file; default: as the weights are.

        Raises:
            RequestError: there is no such run, or it has no checkpoint. DataError: the weights cannot be read.
            SpecError: no model of transformers that is known here is this stack.
        """
        import torch

        from chimeralab.stack.weights import export_weights, read_stack, read_tensors

        if isinstance(source, int):
            stack, folder = self.spec(source).stack, self._checkpoint(source, checkpoint)
        else:
            folder = Path(source)
            stack = read_stack(folder)
        return export_weights(
            stack, read_tensors(folder), to, family=family, dtype=getattr(torch, dtype) if dtype else None
        )

    def saved_stack(self, folder: Path | str) -> StackSpec:
        """The stack of a folder of weights. Raises DataError: there is none."""
        from chimeralab.stack.weights import read_stack

        return read_stack(Path(folder))

    def evaluate(
        self,
        run_id: int,
        tests: Sequence[str],
        *,
        checkpoint: Literal["best", "newest"] = "best",
        length: int | None = None,
        limit: int | None = None,
        shots: int | None = None,
    ) -> dict[str, float]:
        """Measure a run's checkpoint here and now by tests of the lm-evaluation-harness, and keep what is found with
        the run, as metrics `lm_eval/test/metric` at the checkpoint's step.

        Args:
            tests: names that the harness knows, or files of tasks (YAML).
            length: most tokens of context and continuation together; default: the sequences of training.
            limit: only so many documents of each test. shots: examples before each question, not the test's own.

        Raises:
            RequestError: there is no such run, it has no checkpoint, or the harness is not installed.
            SpecError: its model writes no text. DataError: there is no such test, or its data cannot be read.
        """
        from chimeralab.runs.language import evaluate_language

        spec, folder = self.spec(run_id), self._checkpoint(run_id, checkpoint)
        measured = evaluate_language(
            spec, folder, self.home.path / "cache", tests, length=length, limit=limit, shots=shots
        )
        self.store.record(run_id, measured)
        return measured.values

    def _checkpoint(self, run_id: int, role: str) -> Path:
        found = {artifact.role: artifact.path for artifact in self.artifacts(run_id)}
        if not found:
            self.run(run_id)  # says so where there is no such run
            raise RequestError("it has no checkpoint yet", place=f"run {run_id}")
        return Path(found.get(role) or found["newest"])

    def check(self, stack: StackSpec) -> None:
        """Raises SpecError where a layer does not exist or cannot be built as asked."""
        from chimeralab.stack.resolve import resolve

        resolve(stack)

    def text(self, stack: StackSpec) -> str:
        return to_text(stack.layers)

    def cost(
        self,
        stack: StackSpec,
        *,
        vocab_size: int = 256,
        batch_size: int | None = None,
        sequence_length: int = 256,
        contexts: Sequence[int] | None = None,
        precision: str = "float32",
    ) -> CostReport:
        """What the stack costs; nothing is built. See `chimeralab.stack.cost.cost`."""
        from chimeralab.stack.cost import cost

        return cost(
            stack,
            vocab_size=vocab_size,
            batch_size=batch_size,
            sequence_length=sequence_length,
            contexts=contexts,
            precision=precision,
        )

    # -- run ------------------------------------------------------------------------------------------------

    def preview(self, spec: RunSpec) -> CostReport:
        """Everything that `submit` checks, and what the run will cost; nothing is queued."""
        from chimeralab.runs.check import check, check_memory

        report = check(spec)
        status = self.cluster()
        if status is not None and status.alive:
            asked = spec.resources
            if asked.gpus > status.gpus:
                raise ResourceError(
                    f"{asked.gpus:g} GPUs are asked for and the cluster has {status.gpus:g}",
                    place="resources.gpus",
                    remedy="Ask for fewer, or add a worker with GPUs to the cluster",
                )
            if asked.cpus > status.cpus:
                raise ResourceError(
                    f"{asked.cpus:g} CPUs are asked for and the cluster has {status.cpus:g}",
                    place="resources.cpus",
                    remedy="Ask for fewer",
                )
            if asked.gpus == 0 and status.memory:
                check_memory(report, int(status.memory), "the cluster")
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
        """Wait until all have ended. `watch` sees their rows at each poll.

        Raises:
            TimeoutError: after `timeout` seconds.
        """
        ids = [run_ids] if isinstance(run_ids, int) else list(run_ids)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            rows = [self.store.run(run_id) for run_id in ids]
            watch(rows)
            if all(row.status in ENDED for row in rows):
                return rows
            if deadline is not None and time.monotonic() > deadline:
                states = ", ".join(f"{row.id} {row.status}" for row in rows)
                raise TimeoutError(f"runs did not end in {timeout:g} s: {states}")
            time.sleep(poll)

    def cancel(self, run_id: int) -> str:
        """Cancel a queued run at once, ask a running one to stop; returns its status."""
        return self.store.request_cancel(run_id)

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

    def cluster(self) -> ClusterStatus | None:
        """The cluster that works for this store, as it last reported; None when none ever did."""
        found = self.store.clusters()
        if not found:
            return None
        newest = found[0]
        resources = newest.resources
        return ClusterStatus(
            address=newest.address,
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
            memory=resources.get("memory", 0.0),
            nodes=int(resources.get("nodes", 0)),
            alive=time.time() - newest.heartbeat_at < ALIVE_SECONDS,
        )


def _gpu_memory() -> int | None:
    """Bytes of this machine's first GPU; None without one (the cluster's GPUs are then elsewhere)."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def _color(name: str) -> str:
    """A steady colour for a layer that chose none."""
    import colorsys
    import zlib

    hue = zlib.crc32(name.encode()) % 360 / 360
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.5, 0.55))
    return f"#{red:02x}{green:02x}{blue:02x}"


__all__ = [
    "ClusterStatus",
    "KernelEntry",
    "Lab",
    "PaletteEntry",
    "RunFilter",
    "SpecError",
    "TaskEntry",
]

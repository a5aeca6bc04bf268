"""`chimeralab up`, `down` and `demo`."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer

from chimeralab.cli.manage import print_comparison
from chimeralab.cli.options import ClusterOption, HomeOption, StoreOption, open_lab
from chimeralab.cli.output import err, out
from chimeralab.cli.train import make_spec, watch
from chimeralab.errors import RunFailed, SpecError, StoreError

HostOption = Annotated[str, typer.Option(help="Address to listen on. There is no login yet: keep it on loopback.")]
PortOption = Annotated[int, typer.Option(help="Port of the dashboard.", min=1, max=65535)]
LOOK_SECONDS = 30.0  # as long as a cluster may be silent
HYBRID = "every(3, attention, offset=2, base=mamba2) x6"


def up(
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    cpus: Annotated[int | None, typer.Option(help="Cores of an embedded cluster; default: all.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of an embedded cluster; default: all.")] = None,
    keep_cluster: Annotated[
        bool, typer.Option("--keep-cluster", help="Leave the embedded cluster running at the end.")
    ] = False,
    home: HomeOption = None,
    store: StoreOption = None,
    cluster: ClusterOption = "embedded",
) -> None:
    """Start the lab: cluster, queue and dashboard, until Ctrl-C.

    Runs that were active when the lab last stopped go on from their newest checkpoint.
    """
    _check_port(host, port)
    err.print("starting the cluster …")
    lab = open_lab(home, store, cluster, cpus=cpus, gpus=gpus)
    try:
        out.print(f"dashboard: http://{host}:{port}/", markup=False)
        _serve(lab, host, port, lambda: lab.connect(cluster, cpus=cpus, gpus=gpus))
    finally:
        lab.close(keep_cluster=keep_cluster)


def down(home: HomeOption = None) -> None:
    """Stop the home's embedded cluster, if one was left running. Its runs go on at the next start."""
    from chimeralab.lab import Lab

    out.print("stopped" if Lab.stop_cluster(home) else "no embedded cluster runs for this home")


def demo(
    steps: Annotated[int, typer.Option(help="Optimizer steps of each run.", min=1)] = 250,
    d_model: Annotated[int, typer.Option(help="Model width.")] = 128,
    serve_dashboard: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the dashboard at the end.")] = True,
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    home: HomeOption = None,
    store: StoreOption = None,
    cluster: ClusterOption = "embedded",
) -> None:
    """Train a hybrid and an attention-only stack of the same size on real text, and compare them."""
    if serve_dashboard:
        _check_port(host, port)
    err.print("starting the cluster …")
    with open_lab(home, store, cluster) as lab:
        specs = [make_spec(*demo_run) for demo_run in _demo_runs(lab, steps, d_model)]
        run_ids = [lab.submit(spec) for spec in specs]
        rows = watch(lab, run_ids)
        comparison = lab.compare(run_ids)
        entropy = lab.events(run_ids[0], kinds=["environment"])[-1].payload["data"]["unigram bits per byte"]
        print_comparison(comparison)
        out.print(f"\nunigram entropy of the corpus: {entropy:.3f} bits per byte")
        failed = [row for row in rows if row.status != "completed"]
        if failed:
            raise RunFailed(f"it is {failed[0].status}: {failed[0].status_reason}", place=f"run {failed[0].id}")
        if serve_dashboard:
            ids = ",".join(str(run_id) for run_id in run_ids)
            out.print(f"dashboard: http://{host}:{port}/ui/compare?runs={ids}   (Ctrl-C ends it)", markup=False)
            _serve(lab, host, port, lambda: lab.connect(cluster))


def _check_port(host: str, port: int) -> None:
    """Find out before anything is started that the dashboard could not listen."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise SpecError(
            f"cannot listen: {error.strerror}", place=f"{host}:{port}", remedy="Choose another port with --port"
        ) from None


def _serve(lab: Any, host: str, port: int, connect: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, which are the ordinary ways to end it, or until the cluster is lost.

    Raises:
        ClusterError: the cluster was silent, and `connect` did not bring it back.
        Exception: whatever else ended the watch over it, such as an OSError of a full disk. A dashboard that nobody
            watches for would show runs that wait, and never why.
    """
    from chimeralab_webui.app import serve  # gradio takes 5 s to import

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    over, lost = threading.Event(), list[Exception]()

    def watch() -> None:
        try:
            _keep_cluster(lab, connect, over)
        except Exception as error:
            lost.append(error)
            over.set()

    threading.Thread(target=watch, name="cluster watch", daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        serve(lab, host, port, over)
    over.set()
    if lost:
        raise lost[0]


def _keep_cluster(lab: Any, connect: Callable[[], None], over: threading.Event) -> None:
    """Connect again whenever the cluster has been silent for a minute: a head that was started anew knows no lab.

    While the store is away no cluster can report: that is said once, and counts as no silence.
    """
    silent, away = 0, False
    while not over.wait(LOOK_SECONDS):
        try:
            status = lab.cluster()
        except StoreError as error:
            if not away:
                err.print(f"the store is away; looking again …  {error}", markup=False)
            silent, away = 0, True
            continue
        away = False
        silent = 0 if status is not None and status.alive else silent + 1
        if silent == 2:
            err.print("the cluster is silent; connecting again …")
            connect()
            silent = 0


def _demo_runs(lab: Any, steps: int, d_model: int) -> list[tuple[str, int, dict[str, Any]]]:
    """The hybrid, and attention alone with feed-forwards as much wider as makes their parameters equal."""
    hybrid = lab.cost(lab.compose(HYBRID, d_model=d_model)).total_params
    narrow = lab.cost(lab.compose("attention x6, ffn=swiglu[hidden=8]", d_model=d_model)).total_params
    hidden = 8 + round((hybrid - narrow) / (6 * 3 * d_model))
    quarter = max(1, steps // 4)
    fields: dict[str, Any] = {
        "project": "demo",
        "train": {"steps": steps, "batch_size": 8, "eval_every": quarter, "checkpoint_every": quarter},
        "profile": {"contexts": [256, 2048]},
    }
    return [
        (HYBRID, d_model, {"name": "hybrid: attention every third layer", **fields}),
        (f"attention x6, ffn=swiglu[hidden={hidden}]", d_model, {"name": "attention only", **fields}),
    ]

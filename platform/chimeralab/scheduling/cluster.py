"""The Ray cluster: one that the lab starts for itself, or one that is there already."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from chimeralab.errors import ClusterError
from chimeralab.scheduling.home import Home
from chimeralab.scheduling.users import Use, alone

NAMESPACE = "chimeralab"
START_SECONDS = 240  # a Ray head takes 10 s, and over 60 on a machine whose every core compiles kernels
START_TRIES = 3  # Ray ends a head whose raylet has not reported within 30 s, however busy the machine is
KNOCK_SECONDS = 5
OWN_KNOCK_SECONDS = 60  # a head whose process lives answers late where every core is busy, but it answers
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and no settings of ours
OBJECT_STORE_BYTES = 128 * 2**20  # runs pass events, not tensors, through Ray
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """The head of an embedded cluster, as the home's cluster.json tells of it."""

    address: str
    pid: int
    folder: str
    kept: bool = False  # it goes on when nobody uses it any more

    def end(self) -> None:
        """End the head with everything that runs in its cluster."""
        _end(self.pid, Path(self.folder))


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to. `pid` is the embedded head's; 0 when it is somebody else's."""

    home: Home
    address: str
    pid: int = 0
    use: Use | None = None  # of the embedded cluster

    @property
    def identity(self) -> str:
        """Names the cluster in the store, the same after a restart. One home may have runs in several clusters."""
        return self.home.identity if self.pid else f"{self.home.identity}@{self.address}"

    def leave(self, *, keep: bool = False) -> None:
        """Disconnect. The last process that leaves an embedded cluster ends it, unless one of them keeps it."""
        import ray

        ray.shutdown()
        if self.use is None:
            return
        with alone(self.home.cluster_lock):
            head = _living(self.home)
            if head is not None and keep:
                head = _write(self.home, replace(head, kept=True))
            if self.use.end() and head is not None and not head.kept:
                head.end()


def embedded(home: Home, *, cpus: int | None = None, gpus: int | None = None) -> Cluster:
    """Connect to the home's own cluster, starting it where it does not run.

    The cluster is a process group of its own: it outlives a process that is killed, so that runs go on while a
    dashboard is restarted. One that nobody used when it was found is kept.

    Raises:
        ClusterError: it did not start; the reason is in the message.
    """
    _use_token(home.token_file)
    with alone(home.cluster_lock):
        unused = Use(home.cluster_users).end()
        head = _answering(home)
        if head is None:
            head = _write(home, _started(cpus, gpus))
        elif unused and not head.kept:
            _write(home, replace(head, kept=True))
        return Cluster(home, head.address, head.pid, Use(home.cluster_users))


def connect(home: Home, address: str) -> Cluster:
    """Connect to a cluster at `host:port`, `ray://host:port` or "auto".

    A cluster with token authentication wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN).

    Raises:
        ClusterError: nobody answers there, or it refuses us.
    """
    own = _living(home)
    if own is not None and own.address == address:
        return embedded(home)
    return Cluster(home, _attach(address, KNOCK_SECONDS))


def stop_embedded(home: Home) -> bool:
    """Stop the home's cluster from any process; False when none runs."""
    with alone(home.cluster_lock):
        head = _living(home)
        if head is not None:
            head.end()
    return head is not None


def _write(home: Home, head: Head) -> Head:
    scratch = home.cluster_file.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(head)))
    scratch.replace(home.cluster_file)
    return head


def _answering(home: Home) -> Head | None:
    """The home's head, connected to. One that lives and does not answer is of no use to anybody, and is ended."""
    head = _living(home)
    if head is not None:
        try:
            _attach(head.address, OWN_KNOCK_SECONDS)
        except ClusterError:
            head.end()
            return None
    return head


def _attach(address: str, patience: float) -> str:
    """Connect this process; returns the address, that which "auto" has found too."""
    import ray

    _knock(address, patience)
    if ray.is_initialized():
        ray.shutdown()
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    try:
        context: Any = ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:  # Ray raises a dozen kinds here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ClusterError(
            f"no Ray cluster can be reached: {reason}",
            place=f"cluster {address}",
            remedy="Check the address, that the head runs, and RAY_AUTH_TOKEN_PATH if it wants a token",
        ) from error
    return str(context.address_info["gcs_address"]) if address == "auto" else address


def _knock(address: str, patience: float) -> None:
    """Find out in seconds that no Ray head listens; Ray itself tries for minutes and fills the terminal."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    place = f"cluster {address}"
    remedy = "Check the address and that the head runs"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=patience) as line:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            line.sendall(HTTP2_HELLO)
            settings = line.recv(9)[3:4] == b"\x04"
    except TimeoutError:
        raise ClusterError(f"nobody answers within {patience:g} s", place=place, remedy=remedy) from None
    except ValueError:
        raise ClusterError("this is not an address", place=place, remedy="Write host:port, or auto") from None
    except OSError as error:
        raise ClusterError(f"nobody answers: {error.strerror or error}", place=place, remedy=remedy) from None
    if not settings:
        raise ClusterError("what answers there is no Ray head", place=place, remedy=remedy)


def _use_token(path: Path) -> None:
    """Ray reads the mode once, when it is imported, and keeps the token: tell it again."""
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"] = "token", str(path)
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win over the file
    if "ray" in sys.modules:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _living(home: Home) -> Head | None:
    try:
        head = Head(**json.loads(home.cluster_file.read_text()))
        process = psutil.Process(head.pid)
        ours = (
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE and "ray" in " ".join(process.cmdline())
        )
    except (OSError, ValueError, TypeError, psutil.Error):
        return None
    return head if ours else None


def _started(cpus: int | None, gpus: int | None) -> Head:
    """A new head, connected to."""
    head = _start(cpus, gpus)
    try:
        _attach(head.address, OWN_KNOCK_SECONDS)
    except ClusterError:
        head.end()
        raise
    return head


def _start(cpus: int | None, gpus: int | None) -> Head:
    for _ in range(START_TRIES - 1):
        try:
            return _start_once(cpus, gpus)
        except ClusterError as error:
            log.warning("%s; trying again", error)
    return _start_once(cpus, gpus)


def _start_once(cpus: int | None, gpus: int | None) -> Head:
    # Unix sockets allow 107 characters, so Ray's folder must have a short name
    folder = Path(tempfile.mkdtemp(prefix="chimeralab-ray-"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--temp-dir={folder}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    command += [f"--num-cpus={cpus or os.cpu_count() or 1}"]
    command += [f"--num-gpus={gpus}"] if gpus is not None else []
    log = folder / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    address_file = folder / "ray_current_cluster"
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text() or not address_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = " ".join(log.read_text().split()[-60:])
            _end(process.pid, folder)
            raise ClusterError(f"the embedded Ray cluster did not start: {tail}", place="cluster")
        time.sleep(0.1)
    return Head(address_file.read_text().strip(), process.pid, str(folder))


def _end(pid: int, folder: Path) -> None:
    try:
        head = psutil.Process(pid)
        family = [*head.children(recursive=True), head]
    except psutil.Error:
        family = []
    # workers leave the head's process tree when it dies first, but all of them name its folder
    family += [process for process in psutil.process_iter(["cmdline"]) if _names(process, folder)]
    # dispatcher and workers go within half a second; Ray's own never go for this signal, however long one waits
    for sign, seconds in ((signal.SIGTERM, 1), (signal.SIGKILL, 5)):
        for process in family:
            try:
                process.send_signal(sign)
            except psutil.Error:
                continue
        _, family = psutil.wait_procs(family, timeout=seconds)
    shutil.rmtree(folder, ignore_errors=True)


def _names(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in part for part in process.info["cmdline"] or ())

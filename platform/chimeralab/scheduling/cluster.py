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
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from chimeralab.errors import ClusterError
from chimeralab.scheduling.home import Home

NAMESPACE = "chimeralab"
START_SECONDS = 240  # a Ray head takes 10 s, and over 60 on a machine whose every core compiles kernels
START_TRIES = 3  # Ray ends a head whose raylet has not reported within 30 s, however busy the machine is
KNOCK_SECONDS = 5
OWN_KNOCK_SECONDS = 60  # a head whose process lives answers late where every core is busy, but it answers
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and no settings of ours
OBJECT_STORE_BYTES = 128 * 2**20  # runs pass events, not tensors, through Ray
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to. `pid` is the embedded head's; 0 when it is somebody else's."""

    address: str
    pid: int = 0
    folder: str = ""

    @property
    def embedded(self) -> bool:
        return self.pid > 0

    def disconnect(self) -> None:
        import ray

        ray.shutdown()

    def stop(self) -> None:
        """End an embedded cluster with everything that runs in it."""
        self.disconnect()
        if self.embedded:
            _end(self.pid, Path(self.folder))


def embedded(home: Home, *, cpus: int | None = None, gpus: int | None = None) -> tuple[Cluster, bool]:
    """Connect to the home's own cluster, starting it where it does not run. Returns it and whether it was started.

    The cluster is a process group of its own: it outlives this process until `Cluster.stop`, so that runs go on
    while a dashboard is restarted.

    Raises:
        ClusterError: it did not start; the reason is in the message.
    """
    _use_token(home.token_file)
    found = _living(home)
    if found is not None:
        try:
            _attach(found.address, OWN_KNOCK_SECONDS)
            return found, False
        except ClusterError:
            _end(found.pid, Path(found.folder))  # a head that does not answer is of no use to anybody
    cluster = _start(cpus, gpus)
    home.cluster_file.write_text(json.dumps(asdict(cluster)))
    _attach(cluster.address, OWN_KNOCK_SECONDS)
    return cluster, True


def connect(address: str) -> Cluster:
    """Connect to a cluster at `host:port`, `ray://host:port` or "auto".

    A cluster with token authentication wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN).

    Raises:
        ClusterError: nobody answers there, or it refuses us.
    """
    _attach(address, KNOCK_SECONDS)
    return Cluster(address)


def stop_embedded(home: Home) -> bool:
    """Stop the home's cluster from any process; False when none runs."""
    found = _living(home)
    if found is None:
        return False
    _end(found.pid, Path(found.folder))
    return True


def _attach(address: str, patience: float) -> None:
    import ray

    _knock(address, patience)
    if ray.is_initialized():
        ray.shutdown()
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    try:
        ray.init(
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


def _living(home: Home) -> Cluster | None:
    try:
        cluster = Cluster(**json.loads(home.cluster_file.read_text()))
        process = psutil.Process(cluster.pid)
        ours = (
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE and "ray" in " ".join(process.cmdline())
        )
    except (OSError, ValueError, TypeError, psutil.Error):
        return None
    return cluster if ours else None


def _start(cpus: int | None, gpus: int | None) -> Cluster:
    for _ in range(START_TRIES - 1):
        try:
            return _start_once(cpus, gpus)
        except ClusterError as error:
            log.warning("%s; trying again", error)
    return _start_once(cpus, gpus)


def _start_once(cpus: int | None, gpus: int | None) -> Cluster:
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
    return Cluster(address_file.read_text().strip(), process.pid, str(folder))


def _end(pid: int, folder: Path) -> None:
    try:
        head = psutil.Process(pid)
        family = [*head.children(recursive=True), head]
    except psutil.Error:
        family = []
    # workers leave the head's process tree when it dies first, but all of them name its folder
    family += [process for process in psutil.process_iter(["cmdline"]) if _names(process, folder)]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in family:
            try:
                process.send_signal(sign)
            except psutil.Error:
                continue
        _, family = psutil.wait_procs(family, timeout=5)
    shutil.rmtree(folder, ignore_errors=True)


def _names(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in part for part in process.info["cmdline"] or ())

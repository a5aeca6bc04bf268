"""The lab's folder: database, prepared data, checkpoints, and the embedded cluster's address."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chimeralab.errors import StoreError


@dataclass(frozen=True)
class Home:
    """`$CHIMERALAB_HOME`, or `~/.chimeralab`. On a cluster of several machines it must be a shared folder."""

    path: Path

    @classmethod
    def open(cls, path: Path | str | None = None) -> Home:
        where = Path(path or os.environ.get("CHIMERALAB_HOME") or Path.home() / ".chimeralab").expanduser().resolve()
        try:
            for folder in (where, where / "cache", where / "runs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error.strerror}", place=str(where), remedy="Choose a folder with --home"
            ) from None
        return cls(where)

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.path / 'lab.db'}"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def cluster_file(self) -> Path:
        return self.path / "cluster.json"

    @property
    def cluster_lock(self) -> Path:
        """Held by a process that starts or stops the embedded cluster."""
        return self.path / "cluster.lock"

    @property
    def cluster_users(self) -> Path:
        """Held in common by the processes that use the embedded cluster."""
        return self.path / "cluster.users"

    @property
    def kernel_times(self) -> Path:
        return self.path / "kernel_times.json"

    def run(self, run_id: int) -> Path:
        return self.path / "runs" / str(run_id)

    @property
    def identity(self) -> str:
        """Names this lab's cluster in the store, the same after a restart."""
        return self._secret("identity", 8)

    @property
    def token_file(self) -> Path:
        """The token that every process of the embedded cluster must know."""
        self._secret("ray_token", 32)
        return self.path / "ray_token"

    def _secret(self, name: str, size: int) -> str:
        path = self.path / name
        if not path.exists():
            handle, scratch = tempfile.mkstemp(dir=self.path)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(size))
            try:
                os.link(scratch, path)  # the first of several processes wins; mkstemp made it readable to us alone
            except FileExistsError:
                pass
            finally:
                os.unlink(scratch)
        return path.read_text().strip()

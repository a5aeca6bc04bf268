"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from chimeralab.lab import Lab

HomeOption = Annotated[
    Path | None, typer.Option("--home", envvar="CHIMERALAB_HOME", help="The lab's folder; default ~/.chimeralab.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="CHIMERALAB_STORE",
        help="Database URL; default SQLite in the home. CHIMERALAB_STORE_PASSWORD_FILE may hold its password.",
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        "--cluster",
        envvar="CHIMERALAB_CLUSTER",
        help="'embedded' (the home's own, started when needed) or a Ray address, host:port.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def open_lab(home: Path | None, store: str | None, cluster: str | None = None, **embedded: int | None) -> Lab:
    from chimeralab.lab import Lab

    return Lab.open(home, store=store, cluster=cluster, **embedded)

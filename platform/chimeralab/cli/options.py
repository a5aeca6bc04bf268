"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chimeralab.errors import SpecError

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

    return Lab.open(home, store=_with_password(store), cluster=cluster, **embedded)


def _with_password(url: str | None) -> str | None:
    """Put the password of CHIMERALAB_STORE_PASSWORD_FILE into a URL, so that it stands in no command line."""
    path = os.environ.get("CHIMERALAB_STORE_PASSWORD_FILE")
    if not url or not path:
        return url
    from sqlalchemy import make_url

    try:
        password = Path(path).read_text().strip()
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", place=f"CHIMERALAB_STORE_PASSWORD_FILE={path}") from None
    return make_url(url).set(password=password).render_as_string(hide_password=False)

"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
        envvar="CHIMERALAB_STORE",  # that `Lab.open` reads too; here it is told by --help
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
DetachOption = Annotated[bool, typer.Option("--detach", help="Queue it and return; a running lab takes it up.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def read_setting(setting: str) -> tuple[str, Any]:
    """`train.lr=0.1` → train.lr, 0.1; a value that is not JSON is text."""
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise SpecError("expected FIELD=VALUE", place=f"--set {setting}")
    try:
        return path, json.loads(text)
    except ValueError:
        return path, text


def assign(fields: dict[str, Any], setting: str) -> None:
    """`train.lr=0.1` → fields["train"]["lr"] = 0.1."""
    from chimeralab.runs.fields import set_field

    set_field(fields, *read_setting(setting), place=f"--set {setting}")


def open_lab(home: Path | None, store: str | None, cluster: str | None = None, **embedded: int | None) -> Lab:
    from chimeralab.lab import Lab

    return Lab.open(home, store=store, cluster=cluster, **embedded)

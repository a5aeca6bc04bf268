"""`chimeralab plugin new`: for authors of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chimeralab.cli.output import out

author = typer.Typer(help="Write a plugin of your own.", no_args_is_help=True)


@author.command()
def new(
    name: Annotated[str, typer.Argument(help="The package's name, as in my-mixer.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help="mixer, feed_forward, task, kernel or page.")] = "mixer",
    folder: Annotated[Path, typer.Option("--folder", help="Where to write it.")] = Path(),
) -> None:
    """Write a complete package: source, tests, metadata, CI. Its tests pass as written.

    Example: chimeralab plugin new my-mixer --kind mixer
    """
    from chimeralab.authoring import new_plugin

    target = new_plugin(name, kind, folder)
    out.print(f"wrote {target}/", markup=False)
    for path in sorted(target.rglob("*")):
        if path.is_file():
            out.print(f"  {path.relative_to(target)}", markup=False)
    out.print(f'\nnext: cd {target} && pip install -e ".[dev]" && pytest && chimeralab plugins', markup=False)


@author.command()
def hooks() -> None:
    """Print the reference of all hooks, as Markdown."""
    from chimeralab.authoring.hooks import reference

    typer.echo(reference(), nl=False)

"""`chimeralab evaluate`: tests of the lm-evaluation-harness on a run's checkpoint."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from chimeralab.cli.manage import RunArgument
from chimeralab.cli.options import HomeOption, JsonOption, StoreOption, open_lab
from chimeralab.cli.output import number, out, table


def evaluate(
    run: RunArgument,
    tasks: Annotated[
        list[str], typer.Option("--tasks", "-t", help="A file of the harness (YAML), or a test's name; several times.")
    ],
    checkpoint: Annotated[Literal["best", "newest"], typer.Option(help="Which of the run's.")] = "best",
    length: Annotated[
        int | None, typer.Option(min=2, help="Most tokens of context and continuation; default: as in training.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many documents of each test.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples before each question, not the test's own.")] = None,
    home: HomeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a trained run's model the questions of EleutherAI's lm-evaluation-harness; what it finds stays with the run.

    Example: chimeralab evaluate 7 --tasks capitals.yaml --tasks lambada_openai --limit 200
    """
    with open_lab(home, store) as lab:
        found = lab.evaluate(lab.find(run), tasks, checkpoint=checkpoint, length=length, limit=limit, shots=shots)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    out.print(table(("metric", "value"), [(name, number(value, 4)) for name, value in sorted(found.items())]))

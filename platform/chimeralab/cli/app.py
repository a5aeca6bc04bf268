"""The `chimeralab` command: its subcommands, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys

import typer

from chimeralab.cli import (
    author,
    compose,
    evaluate,
    inspect,
    kernels,
    manage,
    match,
    serve,
    study,
    sweep,
    train,
    weights,
)
from chimeralab.cli.output import fail
from chimeralab.errors import ClusterError, LabError, RequestError, RunFailed, StoreError

app = typer.Typer(
    name="chimeralab",
    help="A laboratory for hybrid sequence models: compose a stack, see its cost, train it, compare it.",
    epilog="Exit codes: 0 done, 1 a run failed, 2 bad input, 3 database or cluster out of reach, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command("demo", rich_help_panel="Start here")(serve.demo)
app.command("up", rich_help_panel="Start here")(serve.up)
app.command("down", rich_help_panel="Start here")(serve.down)
app.command("stack", rich_help_panel="Compose")(compose.stack)
app.command("match", rich_help_panel="Compose")(match.match)
app.command("run", rich_help_panel="Train")(train.run)
app.command("resume", rich_help_panel="Train")(train.resume)
app.command("cancel", rich_help_panel="Train")(train.cancel)
app.command("runs", rich_help_panel="Compare")(manage.runs)
app.command("show", rich_help_panel="Compare")(manage.show)
app.command("compare", rich_help_panel="Compare")(manage.compare)
app.command("evaluate", rich_help_panel="Compare")(evaluate.evaluate)
app.command("plugins", rich_help_panel="Look around")(inspect.plugins)
app.add_typer(kernels.kernels, name="kernels", rich_help_panel="Look around")
app.add_typer(sweep.sweep, name="sweep", rich_help_panel="Train")
app.add_typer(study.study, name="study", rich_help_panel="Train")
app.add_typer(weights.weights, name="weights", rich_help_panel="Train")
app.add_typer(author.author, name="plugin", rich_help_panel="Extend")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from chimeralab import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point. A LabError is one message on stderr; anything else is a bug and shows its traceback."""
    try:
        app()
    except RunFailed as error:
        fail(error, 1)
    except RequestError as error:
        fail(error, 2)
    except (StoreError, ClusterError) as error:
        fail(error, 3)
    except LabError as error:
        fail(error, 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

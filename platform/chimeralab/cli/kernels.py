"""`chimeralab kernels`: the implementations of each op, which serve here, and how fast they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chimeralab.cli.options import HomeOption, JsonOption, StoreOption, open_lab
from chimeralab.cli.output import err, out, table
from chimeralab.errors import SpecError

if TYPE_CHECKING:
    from chimeralab.benchmark import Measurement, Trial

kernels = typer.Typer(invoke_without_command=True)


@kernels.callback()
def show(
    context: typer.Context,
    as_json: JsonOption = False,
    bench: Annotated[bool, typer.Option("--bench", help="Time them on this machine.")] = False,
    op: Annotated[list[str] | None, typer.Option("--op", help="Time those of one op. Repeatable.")] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="S, M (8 × 2,048 tokens) or L (32,768). Default: M on a GPU, else S.")
    ] = None,
    home: HomeOption = None,
    store: StoreOption = None,
) -> None:
    """List the kernels of every op, best first, and why one cannot serve on this machine.

    With --bench each is timed on typical calls and compared with float64; the dashboard shows the figures then.

    Example: chimeralab kernels --bench --op rms_norm
    """
    if context.invoked_subcommand:
        return
    if bench:
        _bench(op or [], size, as_json, home, store)
        return
    if op or size:
        raise SpecError("nothing is timed", place="--op" if op else "--size", remedy="Add --bench")
    from chimeralab.op_samples import kernel_entries

    entries = kernel_entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    taken: set[str] = set()
    rows = []
    for entry in entries:
        state = entry["reason"] or ("taken" if entry["op"] not in taken else "available")
        if state == "taken":
            taken.add(entry["op"])
        rows.append((entry["op"], entry["tier"], state, entry["package"]))
    out.print(table(("op", "kernel", "here", "package"), rows))


def _bench(names: list[str], size: str | None, as_json: bool, home: Path | None, store: str | None) -> None:
    def told(measured: Measurement) -> None:
        err.print(f"[dim]{measured.case} by {measured.kernel}[/]")

    with open_lab(home, store) as lab:
        times = lab.time_kernels(names, size, told)
    if as_json:
        typer.echo(json.dumps(asdict(times), indent=2))
        return
    headers = ("case", "kernel", "forward ms", "with backward", "× floor", "MiB", "first call s", "largest error", "")
    rows = [_row(m) for m in times.measurements]
    out.print(table(headers, rows, title=f"{times.device}, {times.date}"))


def _row(m: Measurement) -> tuple[str, ...]:
    if m.both_ms is None or not m.floor_both_ms:
        return m.case, m.kernel, "", "", "", "", "", "", m.failure
    worst = max(m.errors.items(), key=lambda item: item[1], default=("", 0.0))
    return (
        m.case,
        m.kernel,
        f"{m.forward_ms:.3f}",
        f"{m.both_ms:.3f}",
        f"{m.both_ms / m.floor_both_ms:.1f}",
        "" if m.extra_mib is None else f"{m.extra_mib:.0f}",
        f"{m.first_call_seconds or 0:.1f}",
        f"{worst[1]:.1e} of {worst[0]}" if worst[0] else "",
        m.failure,
    )


@kernels.command()
def tune(
    op: Annotated[list[str] | None, typer.Option("--op", help="Those of one op. Repeatable.")] = None,
    size: Annotated[
        list[str] | None, typer.Option("--size", help="Of the calls timed: S, M, L. Repeatable. Default: M and L; S.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the tiles of a file instead.", exists=True, dir_okay=False)
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the tiles into a file.", dir_okay=False)] = None,
    home: HomeOption = None,
    store: StoreOption = None,
) -> None:
    """Choose the tiles of GPU kernels by their speed on this machine.

    Each choice is first compared with float64. What is quicker than a kernel's own tiles is kept in the home's cache,
    by architecture, and runs take it from there.

    Example: chimeralab kernels tune --op gated_linear_attention --to my_gpu.json
    """

    tried = 0

    def told(trial: Trial) -> None:
        nonlocal tried
        tried += 1
        values = ", ".join(f"{key} {value}" for key, value in trial.values.items()) or "its own"
        shown = trial.trouble if trial.ms is None else f"{trial.ms:.3f} ms"
        err.print(f"[dim]{trial.name} at {trial.shape}: {values}: {shown}[/]", soft_wrap=True)

    with open_lab(home, store) as lab:
        if source is not None:
            lab.read_tiles(source)
            out.print(f"tiles of {source} are taken from now on")
        else:
            count = lab.tune_kernels(op or [], size or [], told)
            out.print(
                f"{count} tiles are quicker than the kernels' own" if tried else "No kernel that serves here has any"
            )
        if to is not None:
            lab.write_tiles(to)

"""`chimeralab kernels`: the implementations of each op, which serve here, and how fast they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from chimeralab.cli.options import HomeOption, JsonOption, StoreOption, open_lab
from chimeralab.cli.output import err, out, table
from chimeralab.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from chimeralab.benchmark import Measurement

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

"""`chimeralab runs`, `show` and `compare`: read what was measured."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from chimeralab.cli.options import HomeOption, JsonOption, StoreOption, open_lab
from chimeralab.cli.output import count, duration, number, out, size, status, table
from chimeralab.cli.series import plain, print_series

if TYPE_CHECKING:
    from chimeralab.comparison import Comparison

Status = Literal["queued", "starting", "running", "completed", "failed", "cancelled", "pruned"]
PROFILED = {"tokens_per_second": "tokens/s", "state_bytes": "of state", "peak_memory_bytes": "at most"}
RunArgument = Annotated[str, typer.Argument(help="A run's id or its unique name.", metavar="RUN")]
RunsArgument = Annotated[list[str], typer.Argument(help="Ids or unique names of runs.", metavar="RUN...")]


def runs(
    text: Annotated[str | None, typer.Argument(help="Only runs whose name, pattern or notes contain this.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.")] = None,
    state: Annotated[Status | None, typer.Option("--status", help="Only with this status.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Only members of this sweep.")] = None,
    order: Annotated[
        str, typer.Option(help="Column or metric:NAME to sort by; '-' first turns it round.")
    ] = "-created",
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 20,
    home: HomeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    from chimeralab.lab import RunFilter

    with open_lab(home, store) as lab:
        wanted = RunFilter(project=project, status=state, text=text, sweep=sweep, order_by=order, limit=limit)
        page = lab.runs(wanted)
        measured = lab.summaries([run.id for run in page.rows])
    values = {run.id: {name: m.last for name, m in measured[run.id].items()} for run in page.rows}
    if as_json:
        shown = [{**asdict(run), "metrics": values[run.id]} for run in page.rows]
        typer.echo(json.dumps({"total": page.total, "runs": shown}, indent=2))
        return
    rows = [
        (
            run.id,
            run.name,
            run.status,
            f"{run.step}/{run.total_steps}",
            number(values[run.id].get("validation/loss")),
            number(values[run.id].get("validation/bits_per_byte")),
            count(run.tokens_per_second or values[run.id].get("train/tokens_per_second")),
            f"{duration(time.time() - run.created_at)} ago",
        )
        for run in page.rows
    ]
    out.print(table(("id", "name", "status", "step", "loss", "bits/byte", "tokens/s", "created"), rows))
    if page.total > len(page.rows):
        out.print(f"[dim]{len(page.rows)} of {page.total}; more with --limit[/]")


def show(run: RunArgument, home: HomeOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show one run: status, attempts, metrics, profile, last words of its log."""
    with open_lab(home, store) as lab:
        run_id = lab.find(run)
        row, attempts = lab.run(run_id), lab.attempts(run_id)
        metrics, profiles = lab.summaries([run_id])[run_id], lab.profiles([run_id])
        artifacts = lab.artifacts(run_id)
        logs = lab.events(run_id, kinds=["log", "status"], limit=12, newest=True)
    if as_json:
        shown = {
            **asdict(row),
            "attempts": [asdict(a) for a in attempts],
            "metrics": {name: asdict(m) for name, m in metrics.items()},
            "profiles": [asdict(p) for p in profiles],
            "artifacts": [asdict(a) for a in artifacts],
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    out.print(f"[bold]run {row.id}[/]  {status(row.status)}  {escape(row.status_reason)}")
    out.print(row.name, markup=False)
    if row.pattern != row.name:
        out.print(row.pattern, markup=False, style="dim")
    out.print(f"step {row.step} of {row.total_steps}, {duration(row.seconds)} of training, attempt {row.attempt}\n")
    last = {name: m.last for name, m in metrics.items()}
    single = plain(last)
    out.print(
        table(
            ("metric", "last", "min", "max"),
            [(n, f"{m.last:.6g}", f"{m.min:.6g}", f"{m.max:.6g}") for n, m in metrics.items() if n in single],
        )
    )
    print_series({row.id: last})
    if profiles:
        rows = [
            (p.name, p.context, p.batch, ", ".join(_measured(*value) for value in p.values.items())) for p in profiles
        ]
        out.print()
        out.print(table(("profile", "context", "batch", ""), rows))
    for artifact in artifacts:
        out.print(
            f"\ncheckpoint {artifact.role}: step {artifact.step}, {size(artifact.bytes)}, {artifact.path}", markup=False
        )
    for event in logs:
        steps = (event.payload.get("from"), event.payload.get("to"))
        said = event.payload.get("message") or " → ".join(step for step in steps if step)
        reason = event.payload.get("reason") or ""
        out.print(f"{time.strftime('%H:%M:%S', time.localtime(event.time))} {said} {reason}", markup=False, style="dim")


def _measured(name: str, value: float) -> str:
    """A measure of a profile with its unit: "12.3 ms", "520 KiB of state"."""
    if name.endswith("_ms"):
        return f"{number(value)} ms"
    if name.endswith("_bytes"):
        return f"{size(value)} {PROFILED.get(name, name)}"
    return f"{count(value)} {PROFILED.get(name, name)}"


def compare(
    run: RunsArgument,
    home: HomeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put runs side by side: quality, speed, memory, and where their specs differ."""
    with open_lab(home, store) as lab:
        comparison = lab.compare([lab.find(reference) for reference in run])
    if as_json:
        typer.echo(comparison.model_dump_json(indent=2))
        return
    print_comparison(comparison)
    print_series({row.id: row.held_out for row in comparison.rows})
    print_seeds(comparison)
    if comparison.differences:
        rows = [(field, *(values[r.id] for r in comparison.rows)) for field, values in comparison.differences.items()]
        out.print()
        out.print(table(("differs in", *(f"run {r.id}" for r in comparison.rows)), rows))


def print_comparison(comparison) -> None:  # type: ignore[no-untyped-def]
    """One column a run, one line a measure."""
    rows = comparison.rows
    contexts = sorted({length for row in rows for length in row.decode_ms})
    lines: list[tuple[str, list[str]]] = [
        ("stack", [row.pattern for row in rows]),
        ("status", [row.status for row in rows]),
        ("parameters", [count(row.params) for row in rows]),
        ("validation loss", [number(row.loss) for row in rows]),
        ("accuracy", [number(row.accuracy) for row in rows]),
        ("bits per byte", [number(row.bits_per_byte) for row in rows]),
        ("training tokens/s", [count(row.tokens_per_second) for row in rows]),
        ("training bytes/s", [count(row.bytes_per_second) for row in rows]),
        ("peak training memory", [size(row.peak_memory_bytes) for row in rows]),
        ("FLOPs utilisation", [f"{row.flops_utilisation:.1%}" if row.flops_utilisation else "" for row in rows]),
    ]
    for length in contexts:
        lines.append((f"prefill ms at {length}", [number(row.prefill_ms.get(length), 2) for row in rows]))
        lines.append((f"decode ms at {length}", [number(row.decode_ms.get(length), 2) for row in rows]))
        lines.append((f"state at {length}", [size(row.state_bytes.get(length)) for row in rows]))
    shown = [(label, *values) for label, values in lines if any(values)]
    out.print(table(("", *(f"run {row.id}" for row in rows)), shown))


def print_seeds(comparison: Comparison) -> None:
    """Runs that differ by seed alone, as one line each, and the differences between stacks; nothing where none do."""
    if not comparison.seeded:
        return
    names = sorted({name for group in comparison.groups for name in group.values})
    shown = [name for name in names if name.startswith(("validation/", "test/"))]
    rows = [
        (group.pattern, group.task, len(group.runs), *(group.values.get(name, "") for name in shown))
        for group in comparison.groups
    ]
    out.print()
    out.print(table(("over seeds", "task", "runs", *shown), rows))
    if comparison.pairs:
        lines = [(p.a, p.b, str(p.difference), f"{p.p:.3g}", f"{p.adjusted:.3g}") for p in comparison.pairs]
        metric = comparison.pairs[0].metric
        out.print()
        out.print(table(("a", "b", f"{metric}: a - b", "p", "p, Holm"), lines))
    out.print("means with 95 % bootstrap intervals over seeds; p of paired sign flips", style="dim")

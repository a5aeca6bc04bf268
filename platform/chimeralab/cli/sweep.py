"""`chimeralab sweep run`, `show`, `list` and `cancel`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chimeralab.cli.options import ClusterOption, DetachOption, HomeOption, JsonOption, StoreOption, open_lab
from chimeralab.cli.output import err, out, table
from chimeralab.errors import RunFailed

if TYPE_CHECKING:
    from chimeralab.lab import Lab
    from chimeralab.statistics import Estimate
    from chimeralab.store import SweepRow
    from chimeralab.sweep_records import SweepTable
    from chimeralab.sweeps import SweepSpec

sweep = typer.Typer(help="Many runs that differ in a few fields: grids, random and learned searches, over seeds.")
SweepArgument = Annotated[str, typer.Argument(help="A sweep's name.", metavar="NAME")]


@sweep.command()
def run(
    reference: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a sweep to go on with.", metavar="FILE|NAME")
    ],
    detach: DetachOption = False,
    home: HomeOption = None,
    store: StoreOption = None,
    cluster: ClusterOption = "embedded",
    as_json: JsonOption = False,
) -> None:
    """Queue a sweep, wait for it, and show its points. What finished before, here or in another sweep, is not repeated.

    Example of a file: name, base (fields of the run, with stack: {pattern, d_model}), axes, seeds; see docs/sweeps.md.
    """
    with open_lab(home, store) as lab:  # everything that can be wrong is found before a cluster is started
        spec = _read(lab, reference)
        lab.sweep(spec)
        queued = lab.sweep_table(spec.name)
    if detach:
        waiting = queued.members.get("queued", 0)
        shown = {"sweep": spec.name, "id": queued.id, "queued": waiting}
        out.print(json.dumps(shown) if as_json else f"sweep {spec.name}: {waiting} runs are queued", markup=False)
        return
    with open_lab(home, store, cluster) as lab:
        watch_sweep(lab, spec.name)
        found = lab.sweep_table(spec.name)
    _print(found, as_json)
    failed = found.members.get("failed", 0)
    if failed or found.status == "failed":
        reason = found.reason or f"{failed} of {sum(found.members.values())} runs failed"
        raise RunFailed(reason, place=f"sweep {spec.name}", remedy=f"See: chimeralab runs --sweep {spec.name}")


@sweep.command()
def show(name: SweepArgument, home: HomeOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show a sweep's points: mean over seeds with its interval, and the best, chosen on validation."""
    with open_lab(home, store) as lab:
        found = lab.sweep_table(name)
    _print(found, as_json)


@sweep.command("list")
def list_sweeps(home: HomeOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List sweeps, newest first."""
    with open_lab(home, store) as lab:
        rows = lab.sweeps()
    if as_json:
        shown = [{"id": r.id, "name": r.name, "status": r.status, "wanted": r.wanted, "runs": r.members} for r in rows]
        typer.echo(json.dumps(shown, indent=2))
        return
    out.print(table(("sweep", "status", "runs"), [(row.name, row.status, counts(row)) for row in rows]))


@sweep.command()
def cancel(name: SweepArgument, home: HomeOption = None, store: StoreOption = None) -> None:
    """Cancel a sweep: runs that wait at once, those that run after their step. `sweep run NAME` goes on with it."""
    with open_lab(home, store) as lab:
        lab.cancel_sweep(name)
    out.print(f"sweep {name} is cancelled", markup=False)


def watch_sweep(lab: Lab, name: str) -> SweepRow:
    """Wait with a progress bar. Ctrl-C cancels the sweep, so that nothing goes on unseen."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from chimeralab.lab import UNFINISHED

    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[said]}", markup=False))
    with Progress(*columns, console=err) as progress:
        bar = progress.add_task("", total=None, said="queued")

        def update(row: SweepRow) -> None:
            unfinished = sum(row.members.get(status, 0) for status in UNFINISHED)
            done = sum(row.members.values()) - unfinished
            progress.update(bar, total=row.wanted, completed=done, said=counts(row))

        try:
            return lab.wait_sweep(name, watch=update)
        except KeyboardInterrupt:
            lab.cancel_sweep(name)
            err.print("cancelled; the same command goes on with what is left")
            raise


def counts(row: SweepRow) -> str:
    """3 completed, 1 running."""
    return ", ".join(f"{count} {status}" for status, count in sorted(row.members.items()))


def _read(lab: Lab, reference: str) -> SweepSpec:
    from chimeralab.sweeps import read_sweep

    file = Path(reference)
    if file.suffix in (".yaml", ".yml", ".json") or file.is_file():
        return read_sweep(file)
    return lab.sweep_table(reference).spec


def _print(found: SweepTable, as_json: bool) -> None:
    estimates = [(point.estimate(found.metric), point.estimate(found.test_metric)) for point in found.points]
    if as_json:
        points = [
            {"point": p.point, "runs": p.runs, "statuses": p.statuses, "validation": _plain(v), "test": _plain(t)}
            for p, (v, t) in zip(found.points, estimates, strict=True)
        ]
        plain = found.model_dump(mode="json", include={"id", "name", "status", "reason", "wanted", "members"})
        best = None if found.best is None else points[found.best.key]["point"]
        typer.echo(json.dumps({**plain, "metric": found.metric, "points": points, "best": best}, indent=2))
        return
    axes = list(found.points[0].point) if found.points else []
    tested = any(test is not None for _, test in estimates)
    rows: list[list[Any]] = []
    for number, (point, (validation, test)) in enumerate(zip(found.points, estimates, strict=True)):
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(point.statuses.items()))
        mark = "best" if found.best is not None and found.best.key == number else ""
        rows.append([*point.point.values(), _shown(validation), *([_shown(test)] if tested else []), statuses, mark])
    heads = [*axes, found.metric, *([found.test_metric] if tested else []), "runs", ""]
    out.print(table(heads, rows))
    if found.best is not None:
        chosen = found.points[found.best.key]
        said = (
            f"best of {found.best.among} points on validation: {chosen.label}, {found.metric} {found.best.validation}"
        )
        out.print(said + (f"; {found.test_metric} {found.best.test}" if found.best.test else ""), markup=False)
        out.print("intervals: bootstrap over seeds, 95 %", style="dim")


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else {k: getattr(estimate, k) for k in ("mean", "low", "high", "n")}


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)

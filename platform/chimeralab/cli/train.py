"""`chimeralab run`, `resume` and `cancel`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chimeralab.cli.compose import WidthOption
from chimeralab.cli.manage import RunArgument, RunsArgument, print_comparison
from chimeralab.cli.options import ClusterOption, DetachOption, HomeOption, JsonOption, StoreOption, assign, open_lab
from chimeralab.cli.output import duration, err, out
from chimeralab.errors import RunFailed

if TYPE_CHECKING:
    from chimeralab.lab import Lab
    from chimeralab.runs import RunSpec
    from chimeralab.store import RunRow

CANCEL_SECONDS = 60.0  # that Ctrl-C waits for a run to end its step and write its checkpoint
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Any field of the run: train.warmup_steps=10, task.options.tokenizer=bpe."),
]


def run(
    pattern: Annotated[
        str | None, typer.Argument(help="A stack in the pattern language, or a preset's name.", metavar="PATTERN")
    ] = None,
    d_model: WidthOption = None,
    task: Annotated[str, typer.Option(help="What to train on.")] = "text",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 500,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Sequences in a step.")] = 16,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of weights and data order.")] = 0,
    name: Annotated[str, typer.Option(help="For people; default: the pattern.")] = "",
    project: Annotated[str, typer.Option(help="Groups runs.")] = "default",
    cpus: Annotated[float, typer.Option(help="Processor cores for the worker.")] = 1,
    gpus: Annotated[float, typer.Option(help="GPUs for the worker; a fraction shares one.")] = 0,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Start from these: imported ones, or a checkpoint. PATTERN is theirs."),
    ] = None,
    settings: SetOption = None,
    detach: DetachOption = False,
    home: HomeOption = None,
    store: StoreOption = None,
    cluster: ClusterOption = "embedded",
    as_json: JsonOption = False,
) -> None:
    """Train a stack and wait for it.

    Example: chimeralab run "every(3, attention, base=mamba2) x6" --steps 200 --set task.options.source=notes.txt
    """
    fields: dict[str, Any] = {
        "name": name,
        "project": project,
        "seed": seed,
        "task": {"name": task},
        "train": {"steps": steps, "batch_size": batch_size, "lr": lr},
        "resources": {"cpus": cpus, "gpus": gpus},
    }
    if weights is not None:
        fields["start"] = {"folder": str(weights)}
    for setting in settings or ():
        assign(fields, setting)
    if pattern is None and weights is None:
        raise typer.BadParameter("give a PATTERN, or --weights with a stack of their own")
    with open_lab(home, store) as reader:  # everything that can be wrong is found before a cluster is started
        spec = make_spec(pattern, d_model, fields)
        reader.preview(spec)
        if detach:
            run_id = reader.submit(spec)
            out.print(json.dumps({"id": run_id}) if as_json else f"run {run_id} is queued", markup=False)
            return
    with open_lab(home, store, cluster) as lab:
        run_id = lab.submit(spec)
        err.print(f"run {run_id} is queued: {spec.stack.text}", markup=False)
        _finish(lab, [run_id], as_json)


def make_spec(pattern: str | None, d_model: int | None, fields: dict[str, Any]) -> RunSpec:
    """A RunSpec from a pattern (or the stack of its weights) and plain fields; SpecError names what does not fit."""
    from chimeralab.runs.fields import read_run

    given = {name: value for name, value in (("pattern", pattern), ("d_model", d_model)) if value is not None}
    stack = fields.get("stack", {})
    return read_run({**fields, "stack": {**given, **stack} if isinstance(stack, dict) else stack})


def resume(
    run: RunsArgument,
    home: HomeOption = None,
    store: StoreOption = None,
    cluster: ClusterOption = "embedded",
    as_json: JsonOption = False,
) -> None:
    """Go on with failed or cancelled runs from their newest checkpoints, and wait for them; JSON is a line a run."""
    from chimeralab.lab import UNFINISHED

    with open_lab(home, store) as lab:
        run_ids = [lab.find(reference) for reference in run]
        for run_id in run_ids:
            if lab.run(run_id).status not in UNFINISHED:  # those go on by themselves
                lab.retry(run_id)
    with open_lab(home, store, cluster) as lab:
        _finish(lab, run_ids, as_json)


def cancel(run: RunArgument, home: HomeOption = None, store: StoreOption = None) -> None:
    """Cancel a run: a queued one at once, a running one after its current step, with a checkpoint."""
    with open_lab(home, store) as lab:
        run_id = lab.find(run)
        state = lab.cancel(run_id)
        out.print(f"run {run_id} is {'cancelled' if state == 'cancelled' else 'asked to stop'}")


def _finish(lab: Lab, run_ids: Sequence[int], as_json: bool) -> None:
    rows = watch(lab, run_ids)
    comparison = lab.compare(run_ids)
    if as_json:
        for compared in comparison.rows:
            typer.echo(compared.model_dump_json())
    else:
        print_comparison(comparison)
    for row in rows:
        if row.status == "failed":
            raise RunFailed(row.status_reason, place=f"run {row.id}", remedy=f"See: chimeralab show {row.id}")
    if any(row.status == "cancelled" for row in rows):
        raise typer.Exit(1)


def watch(lab: Lab, run_ids: Sequence[int]) -> list[RunRow]:
    """Wait with a progress bar a run. Ctrl-C cancels them, so that nothing goes on unseen."""
    from chimeralab.lab import UNFINISHED

    with _bars(run_ids) as update:
        try:
            return lab.wait(run_ids, watch=lambda rows: update(rows, lab))
        except KeyboardInterrupt:
            err.print("cancelling; press Ctrl-C again to leave at once")
            for row in (lab.run(run_id) for run_id in run_ids):
                if row.status in UNFINISHED:
                    lab.cancel(row.id)
            ids = " ".join(str(run_id) for run_id in run_ids)
            try:
                lab.wait(run_ids, timeout=CANCEL_SECONDS)
            except TimeoutError as error:
                err.print(f"{error}; asked to stop, it ends after its step", markup=False)
            else:
                err.print(f"cancelled; go on with: chimeralab resume {ids}")
            raise


@contextmanager
def _bars(run_ids: Sequence[int]) -> Iterator[Any]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("run {task.fields[run]}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[said]}", markup=False),
    )
    with Progress(*columns, console=err) as progress:
        tasks = {run_id: progress.add_task("", total=None, run=run_id, said="queued") for run_id in run_ids}
        last = 0.0

        def update(rows: list[RunRow], lab: Lab) -> None:
            nonlocal last
            for row in rows:
                progress.update(tasks[row.id], total=row.total_steps, completed=row.step, said=_said(row, lab))
            if not err.is_terminal and time.monotonic() - last > 10:  # a log file gets a line now and then
                last = time.monotonic()
                for row in rows:
                    err.print(f"run {row.id}: {_said(row, lab)}", markup=False)

        yield update


def _said(row: RunRow, lab: Lab) -> str:
    if row.status != "running":
        return f"{row.status} {row.status_reason}".strip()
    if row.phase != "train":
        return f"{row.step}/{row.total_steps} {row.phase}"
    losses = lab.summaries([row.id])[row.id]
    parts = [f"{row.step}/{row.total_steps}"]
    if "train/loss" in losses:
        parts.append(f"loss {losses['train/loss'].last:.3f}")
    if row.tokens_per_second > 0 and row.step:
        left = row.seconds / row.step * (row.total_steps - row.step)
        parts += [f"{row.tokens_per_second:,.0f} tokens/s", f"{duration(left)} left"]
    return "  ".join(parts)

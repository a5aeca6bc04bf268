"""`chimeralab study list`, `show`, `run` and `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chimeralab.cli.options import (
    ClusterOption,
    DetachOption,
    HomeOption,
    JsonOption,
    StoreOption,
    open_lab,
    read_setting,
)
from chimeralab.cli.output import err, out, table
from chimeralab.cli.sweep import watch_sweep
from chimeralab.errors import DataError, RunFailed, SpecError

if TYPE_CHECKING:
    from chimeralab.lab import Lab
    from chimeralab.studies.results import Results

study = typer.Typer(help="Reproduce a published table, or answer a question: sweeps with their report.")
StudyArgument = Annotated[str, typer.Argument(help="A study's name, or its YAML file.", metavar="STUDY")]
ScaleOption = Annotated[
    Literal["tiny", "gpu", "paper"],
    typer.Option(help="tiny: minutes on two CPU cores; gpu: minutes on a GPU; paper: as in the source."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Any field of the runs: task.options.source=input.txt.")
]


@study.command("list")
def list_studies(home: HomeOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the studies that are installed, and the scales at which they ran here."""
    with open_lab(home, store) as lab:
        found = [(one, lab.study_scales(one)) for one in lab.studies()]
        broken = lab.broken_studies()
    if as_json:
        shown = [{**one.model_dump(include={"name", "title", "question"}), "scales": ran} for one, ran in found]
        typer.echo(json.dumps(shown, indent=2))
        return
    rows = [(one.name, one.question, _scales(ran)) for one, ran in found]
    rows += [(name, reason, "broken") for name, reason in broken.items()]
    out.print(table(("study", "question", "scales"), rows))


@study.command()
def show(reference: StudyArgument, home: HomeOption = None, store: StoreOption = None) -> None:
    """Show what a study asks, at which scales, and how many runs each has."""
    with open_lab(home, store) as lab:
        one = lab.study(reference)
        ran = lab.study_scales(one)
    out.print(one.title, markup=False, style="bold")
    out.print(f"{one.question}\n\n{one.text}", markup=False)
    for source in one.sources:
        out.print(source, markup=False, style="dim")
    given = dict.fromkeys(one.needs, "")
    rows = [
        (name, len(one.sweep_at(name, given).members()), scale.about, ran[name]) for name, scale in one.scales.items()
    ]
    out.print()
    out.print(table(("scale", "runs", "about", "here"), rows))
    for path, what in one.needs.items():
        out.print(f"needs --set {path}=…: {what}", markup=False)


@study.command()
def run(
    reference: StudyArgument,
    scale: ScaleOption = "tiny",
    settings: SetOption = None,
    detach: DetachOption = False,
    home: HomeOption = None,
    store: StoreOption = None,
    cluster: ClusterOption = "embedded",
    as_json: JsonOption = False,
) -> None:
    """Run a study at a scale, wait for it, and show its tables. What has finished before is not repeated.

    Example: chimeralab study run zoology-mqar --scale tiny
    """
    fields = dict(map(read_setting, settings or ()))
    with open_lab(home, store) as reader:  # what is wrong with all members alike is found before a cluster is started
        one = reader.study(reference)
        sweep = one.checked_sweep(scale, fields)
        if detach:
            number = reader.sweep(sweep)
            shown = {"sweep": sweep.name, "id": number}
            out.print(json.dumps(shown) if as_json else f"sweep {sweep.name} is queued", markup=False)
            return
        for member in sweep.members()[:1]:
            reader.preview(member.spec)
    with open_lab(home, store, cluster) as lab:
        lab.sweep(sweep)
        row = watch_sweep(lab, sweep.name)
        found = lab.study_results(one, scale)
        file = _write(lab, found, None)
    _print(found, as_json)
    err.print(f"report: {file}", markup=False, soft_wrap=True)
    if row.members.get("failed"):
        count = row.members["failed"]
        raise RunFailed(f"{count} of {row.wanted} runs failed", place=f"sweep {row.name}", remedy="Run it again")


@study.command()
def report(
    reference: StudyArgument,
    scale: Annotated[
        Literal["tiny", "gpu", "paper"] | None, typer.Option(help="Default: the largest that ran here.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="FILE.html or FILE.md; default: an HTML page in the lab's folder.")
    ] = None,
    home: HomeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what a study found: tables with intervals beside published values, and figures."""
    with open_lab(home, store) as lab:
        one = lab.study(reference)
        ran = [name for name, status in lab.study_scales(one).items() if status]
        found = lab.study_results(one, scale or (ran[-1] if ran else next(iter(one.scales))))
        file = _write(lab, found, to)
    _print(found, as_json)
    err.print(f"report: {file}", markup=False, soft_wrap=True)


def _write(lab: Lab, found: Results, to: Path | None) -> Path:
    from chimeralab.studies.report import html, markdown

    file = to or lab.home.path / "studies" / f"{found.sweep.name}.html"
    kinds = {".html": html, ".md": markdown}
    if file.suffix not in kinds:
        raise SpecError(f"no report is written as {file.suffix or 'a file without ending'}", place=f"--to {file}",
                        remedy="End it in .html or .md")  # fmt: skip
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(kinds[file.suffix](found))
    except OSError as error:
        raise DataError(f"it cannot be written: {error.strerror}", place=str(file)) from None
    return file


def _print(found: Results, as_json: bool) -> None:
    from chimeralab.studies.report import details, differences, remarks, summary

    if as_json:
        cells = [dict(zip(*pair, strict=True)) for one in found.tables for pair in _lines(*details(found, one))]
        typer.echo(json.dumps({"study": found.study.name, "scale": found.scale, "ended": dict(found.ended),
                               "cells": cells}, indent=2))  # fmt: skip
        return
    out.print(summary(found), markup=False)
    for one in found.tables:
        out.print()
        head, rows = details(found, one)
        out.print(table(head[:-1], [row[:-1] for row in rows], title=one.table.title))
        if one.differences:
            out.print()
            out.print(table(*differences(one), title="Differences from the first row"))
    for title, lines in remarks(found):
        out.print(f"\n{title}", markup=False)
        for line in lines:
            out.print(f"- {line}", markup=False)


def _lines(head: list[str], rows: list[list[str]]) -> list[tuple[list[str], list[str]]]:
    return [(head, row) for row in rows]


def _scales(ran: dict[str, str]) -> str:
    return ", ".join(f"{scale} ({status})" if status else scale for scale, status in ran.items())

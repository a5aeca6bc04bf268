"""`chimeralab plugins`: what is installed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from chimeralab.cli.options import JsonOption
from chimeralab.cli.output import err, out, table
from chimeralab.errors import SpecError


def plugins(
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 when a plugin is broken.")] = False,
    check: Annotated[
        list[str] | None,
        typer.Option("--check", help="Run the conformance suite on a name, on op/kernel, or on 'all'. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes that check.")] = 1,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the findings as an HTML page.", dir_okay=False)
    ] = None,
) -> None:
    """List the plugins: package, version, hooks, state, and the traceback of a broken one.

    With --check, what a name declares and computes is checked with its default options, also on each kernel tier in
    each dtype.

    Example: chimeralab plugins --check mamba2 --report mamba2.html
    """
    from chimeralab.plugins import registry

    if check:
        _check(check, as_json, jobs, report)
        return
    if report is not None:
        raise SpecError("nothing is checked", place="--report", remedy="Say what to check with --check NAME")
    found = registry().all()
    if as_json:
        typer.echo(json.dumps([asdict(info) for info in found], indent=2))
    else:
        headers = ("plugin", "package", "version", "state", "provides")
        rows = [(p.name, p.package, p.version, p.state, ", ".join(p.provides) or ", ".join(p.hooks)) for p in found]
        out.print(table(headers, rows))
        for info in found:
            if info.state == "broken":
                err.print(f"\n[red]{info.name}[/] of {info.package} is broken:")
                err.print(info.error, markup=False)
    if strict and any(info.state == "broken" for info in found):
        raise typer.Exit(2)


def _check(names: list[str], as_json: bool, jobs: int, report: Path | None) -> None:
    from rich.progress import Progress

    from chimeralab.testing.named import ALL, checks_of, run_checks

    checks = checks_of(names)
    with Progress(console=err, transient=True, disable=as_json) as progress:
        task = progress.add_task("checking", total=len(checks))
        findings = run_checks(checks, jobs, lambda _: progress.advance(task))
    if report is not None:
        from chimeralab.testing.report import page

        report.write_text(page(findings), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        shown = [
            (f.subject, f.where, f.check.removeprefix("test_").replace("_", " "), "ok" if f.ok else "FAILS", f.message)
            for f in findings
            if names != [ALL] or not f.ok
        ]
        if shown:
            out.print(table(("name", "where", "check", "", "what to mend"), shown))
        out.print(f"{sum(f.ok for f in findings)} of {len(findings)} checks pass")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)

"""`chimeralab plugins` and `chimeralab kernels`: what is installed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from chimeralab.cli.options import JsonOption
from chimeralab.cli.output import err, out, table


def plugins(
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 when a plugin is broken.")] = False,
    check: Annotated[
        str | None,
        typer.Option("--check", help="Run the conformance suite on a name, or on op/kernel."),
    ] = None,
) -> None:
    """List the plugins: package, version, hooks, state, and the traceback of a broken one.

    Example: chimeralab plugins --check mamba2
    """
    from chimeralab.plugins import registry

    if check is not None:
        _check(check, as_json)
        return
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


def _check(name: str, as_json: bool) -> None:
    from chimeralab.testing.named import check_named

    findings = check_named(name)
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        shown = [
            (f.check.removeprefix("test_").replace("_", " "), "ok" if f.ok else "FAILS", f.message) for f in findings
        ]
        out.print(table(("check", "", "what to mend"), shown))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def kernels(as_json: JsonOption = False) -> None:
    """List the kernels of every op, best first, and why one cannot serve on this machine."""
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

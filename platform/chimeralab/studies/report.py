"""A study's report: Markdown for a repository, or one HTML page with its figures, which needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from chimeralab.statistics import Estimate
from chimeralab.studies.results import Cell, Curve, FigureOf, Results, TableOf, disagreements, labels, shown

COLORS = ("#5b5bd6", "#12a594", "#e5484d", "#f5a524", "#0090ff", "#d6409f", "#46a758", "#8e4ec6", "#f76b15", "#7b8794")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024 }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d9d9e0; text-align: left; vertical-align: top }
td small { color: #60646c; display: block } .figure { height: 26rem }
"""


def markdown(found: Results) -> str:
    """The report as Markdown, without figures."""
    study = found.study
    parts = [f"# {study.title}", f"**{study.question}**", study.text.strip()]
    parts.append(f"Scale `{found.scale}`: {study.scale(found.scale).about.strip()}")
    parts.append(summary(found))
    for table in found.tables:
        parts.append(f"## {table.table.title}")
        parts.append(_markdown_table(*matrix(table)))
        if table.differences:
            parts.append(f"Differences from {_first(table)}, paired over columns and seeds:")
            parts.append(_markdown_table(*differences(table)))
    for title, lines in remarks(found):
        parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    for table in found.tables:
        parts += [f"## Details: {table.table.title}", _markdown_table(*details(found, table))]
    return "\n\n".join(part for part in parts if part) + "\n"


def html(found: Results) -> str:
    """The report as one page; Plotly is within it."""
    from plotly.offline import get_plotlyjs

    study = found.study
    body = [f"<h1>{escape(study.title)}</h1>", f"<p><strong>{escape(study.question)}</strong></p>"]
    paragraphs = [study.text, f"Scale {found.scale}: {study.scale(found.scale).about}", summary(found)]
    body += [f"<p>{escape(text.strip())}</p>" for text in paragraphs if text.strip()]
    for index, figure in enumerate(found.figures):
        body.append(f'<h2>{escape(figure.figure.title)}</h2><div class="figure" id="figure{index}"></div>')
    for table in found.tables:
        body += [f"<h2>{escape(table.table.title)}</h2>", _html_table(*matrix(table))]
        if table.differences:
            body.append(f"<p>Differences from {escape(_first(table))}, paired over columns and seeds:</p>")
            body.append(_html_table(*differences(table)))
    for title, lines in remarks(found):
        body.append(f"<h2>{escape(title)}</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")
    for table in found.tables:
        body += [f"<h2>Details: {escape(table.table.title)}</h2>", _html_table(*details(found, table))]
    figures = json.dumps([plotly(figure) for figure in found.figures]).replace("<", "\\u003c")
    draw = f"{figures}.forEach((f, i) => Plotly.newPlot('figure' + i, f.data, f.layout, {{responsive: true}}))"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(study.title)}</title>'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body>{''.join(body)}<script>{draw}</script></body></html>\n"
    )


def sections(found: Results) -> dict[str, Any]:
    """The same for a page that draws it: `summary`, `tables` of {title, head, rows}, `remarks`, `figures`."""
    tables = []
    for table in found.tables:
        title = table.table.title
        tables.append({"title": title, "head": matrix(table)[0], "rows": matrix(table)[1]})
        if table.differences:
            head, rows = differences(table)
            tables.append({"title": f"{title}: differences from {_first(table)}", "head": head, "rows": rows})
        head, rows = details(found, table)
        tables.append({"title": f"{title}: details", "head": head, "rows": rows})
    return {
        "summary": summary(found),
        "tables": [table for table in tables if table["rows"]],
        "remarks": [{"title": title, "lines": lines} for title, lines in remarks(found)],
        "figures": [{"title": figure.figure.title, **plotly(figure)} for figure in found.figures if figure.curves],
    }


def summary(found: Results) -> str:
    """How many members ended how, by what was chosen, and how long they trained."""
    ended = ", ".join(f"{count} {status}" for status, count in sorted(found.ended.items())) or "none yet"
    told = f"{found.members} members: {ended}."
    if found.seconds:
        told += f" Together they trained for {found.seconds:,.0f} s."
    axes = [axis.name for axis in found.sweep.read_axes() if axis.name in found.study.choose and len(axis.choices) > 1]
    if axes:
        told += f" Over {' and '.join(axes)} the best mean of {found.sweep.metric} was taken."
    return told


def matrix(table: TableOf) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: mean and interval, and beneath what was published."""
    columns = labels(table.columns) if table.table.columns else [table.metric]
    head = [table.table.rows, *columns]
    return head, [
        [label, *(_cell(table.cells[row, column]) for column in table.columns)]
        for row, label in zip(table.rows, labels(table.rows), strict=True)
    ]


def details(found: Results, table: TableOf) -> tuple[list[str], list[list[str]]]:
    """A line for each cell that was measured or published: n, what was chosen, where the published value is from."""
    axes = [axis for axis in found.study.choose if axis in found.sweep.axes]
    head = [table.table.rows, table.table.columns or "metric", "mean", "interval", "n", *axes, "published", "source"]
    rows = []
    for (row, column), cell in table.cells.items():
        if cell.test is None and not cell.published:
            continue
        values = [shown(value.value) for value in cell.published]
        sources = [value.source for value in cell.published]
        chosen = labels(cell.chosen.get(axis, "") for axis in axes)
        rows.append([*labels([row, column]), *_numbers(cell.test), *chosen, "; ".join(values), "; ".join(sources)])
    return head, rows


def differences(table: TableOf) -> tuple[list[str], list[list[str]]]:
    """Each row against the first: difference, interval, pairs, p and p by Holm."""
    rows = []
    for pair in table.differences:
        mean, interval, n = _numbers(pair.difference)
        rows.append([*labels([pair.a]), mean, interval, n, f"{pair.p:.3g}", f"{pair.adjusted:.3g}"])
    return [table.table.rows, "difference", "interval", "pairs", "p", "p (Holm)"], rows


def remarks(found: Results) -> list[tuple[str, list[str]]]:
    """What a person found, and where published values are apart from ours."""
    written = found.study.findings.get(found.scale, "")  # type: ignore[call-overload]
    parts = [("Findings", [" ".join(part.split()) for part in written.split("\n\n") if part.strip()])]
    parts.append(("Apart from what was published", disagreements(found)))
    return [(title, lines) for title, lines in parts if lines]


def plotly(found: FigureOf) -> dict[str, Any]:
    """The figure as plain Plotly JSON: a curve with intervals for each label; bars where x are names."""
    figure = found.figure
    named = any(isinstance(x, str) for curve in found.curves for x in curve.x)
    data = [_trace(curve, COLORS[index % len(COLORS)], named) for index, curve in enumerate(found.curves)]
    x: dict[str, Any] = {"title": {"text": figure.x}}
    if figure.log_x and not named:
        ticks = sorted({value for curve in found.curves for value in curve.x})
        x |= {"type": "log", "tickvals": ticks, "ticktext": labels(ticks)}
    layout = {"xaxis": x, "yaxis": {"title": {"text": found.metric}}, "margin": {"t": 20}}
    return {"data": data, "layout": layout | ({"barmode": "group"} if named else {})}


def _trace(curve: Curve, color: str, named: bool) -> dict[str, Any]:
    means = [value.mean for value in curve.y]
    spread = {
        "type": "data",
        "symmetric": False,
        "array": [0 if value.high is None else value.high - value.mean for value in curve.y],
        "arrayminus": [0 if value.low is None else value.mean - value.low for value in curve.y],
    }
    trace = {"x": curve.x, "y": means, "name": labels([curve.label])[0], "error_y": spread}
    if named:
        return {"type": "bar", "marker": {"color": color}, **trace}
    return {"type": "scatter", "mode": "lines+markers", "line": {"color": color, "width": 2}, **trace}


def _cell(cell: Cell) -> str:
    mean, interval, _ = _numbers(cell.test)
    ours = " ".join(part for part in (mean, interval) if part)
    published = "; ".join(shown(value.value) for value in cell.published)
    return "\n".join(part for part in (ours, f"published {published}" if published else "") if part)


def _numbers(found: Estimate | None) -> list[str]:
    """Mean, interval and n, or nothing."""
    if found is None:
        return ["", "", ""]
    interval = "" if found.low is None or found.high is None else f"[{found.low:.3f}, {found.high:.3f}]"
    return [f"{found.mean:.3f}", interval, str(found.n)]


def _first(table: TableOf) -> str:
    return labels([table.differences[0].b])[0]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_inline(cell) for cell in line) + " |" for line in lines)


def _inline(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        parts = [escape(cell).split("\n") for cell in row]
        lines.append("<tr>" + "".join(f"<td>{a}{_small(rest)}</td>" for a, *rest in parts) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _small(lines: Sequence[str]) -> str:
    return "".join(f"<small>{line}</small>" for line in lines)

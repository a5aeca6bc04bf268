"""Measurements of kernels as a table, and as one HTML page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from typing import Any

OURS = ("triton", "cudnn", "flash", "torch")  # in the order in which a call takes them; peers are all others
Group = dict[tuple[str, str], list[dict[str, Any]]]


def name(measured: dict[str, Any]) -> str:
    return f"{measured['op']}, {measured['form']}" if measured["form"] else measured["op"]


def groups(report: dict[str, Any]) -> Group:
    """Measurements by case and size."""
    found: Group = defaultdict(list)
    for measured in report["measurements"]:
        found[name(measured), measured["size"]].append(measured)
    return dict(sorted(found.items()))


def ours(measurements: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    timed = {m["kernel"]: m for m in measurements if m["both_ms"]}
    return next((timed[tier] for tier in OURS if tier in timed), None)


def best_peer(measurements: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The quickest that is not ours: of another library, or the torch tier where a GPU kernel stands before it."""
    timed = [m for m in measurements if m["both_ms"] and m["kernel"] not in OURS[:3]]
    return min(timed, key=lambda m: m["both_ms"], default=None)


def ratios(report: dict[str, Any]) -> dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], float]]:
    """For each case and size ours, the best peer, and its forward and backward pass over ours."""
    found = {}
    for key, measurements in groups(report).items():
        mine, peer = ours(measurements), best_peer(measurements)
        if mine and peer and mine is not peer:
            found[key] = (mine, peer, peer["both_ms"] / mine["both_ms"])
    return found


def means(report: dict[str, Any]) -> dict[str, float]:
    """Geometric mean of the ratios at each size, without those whose only peer is our own torch tier."""
    by_size: dict[str, list[float]] = defaultdict(list)
    for (_, size), (_, peer, ratio) in ratios(report).items():
        if peer["kernel"] != "torch":
            by_size[size].append(math.log(ratio))
    return {size: math.exp(sum(logs) / len(logs)) for size, logs in sorted(by_size.items())}


def heading(report: dict[str, Any]) -> str:
    copy, products = report["bytes_per_second"] / 1e12, report["flops_per_second"] / 1e12
    machine = f"{report['device']}, torch {report['torch']}, {report['dtype']}"
    ceilings = f"a copy {copy:.2f} TB/s, products {products:.0f} TFLOP/s"
    return f"{machine}; {ceilings}; {report['date']}, {report['seconds']} s"


def text(report: dict[str, Any]) -> str:
    lines = [
        heading(report),
        f"{'case':48} {'':2} {'kernel':9}{'fwd ms':>9}{'both':>9}{'launched':>17}{'× floor':>8}{'MiB':>7}{'first s':>8}"
        "  largest error",
    ]
    for (case, size), measurements in groups(report).items():
        lines += [f"{case:48} {size:2} {m['kernel']:9}{_figures(m)}" for m in measurements]
    lines += [f"{case:48}    {trouble}" for case, trouble in report["troubles"].items()]
    for (case, size), (_, peer, ratio) in ratios(report).items():
        lines.append(f"{case:48} {size:2} {ratio:5.2f} × {peer['kernel']}")
    lines += [f"geometric mean at {size}: {mean:.2f} × the best peer" for size, mean in means(report).items()]
    return "\n".join(lines)


def _figures(m: dict[str, Any]) -> str:
    if not m["both_ms"]:
        return f"  {m['failure'][:90]}"
    worst = max(m["errors"].items(), key=lambda item: item[1], default=("", 0.0))
    launched = f"{m['launched_forward_ms']:.3f}/{m['launched_both_ms']:.3f}" if m["launched_both_ms"] else ""
    memory = "" if m["extra_mib"] is None else f"{m['extra_mib']:.0f}"
    least = f"{m['both_ms'] / m['floor_both_ms']:.1f}" if m["floor_both_ms"] else ""
    return (
        f"{m['forward_ms'] or 0:9.3f}{m['both_ms']:9.3f}{launched:>17}{least:>8}{memory:>7}"
        f"{m['first_call_seconds'] or 0:8.1f}  {worst[1]:.1e} {worst[0]} {m['failure'][:60]}"
    )


def page(report: dict[str, Any]) -> str:
    """Bars of times over the floor, then the table; plotly's script is in the page."""
    import plotly.graph_objects as figures

    parts = []
    for size in dict.fromkeys(size for _, size in groups(report)):
        figure = figures.Figure()
        found = {case: ms for (case, at), ms in groups(report).items() if at == size}
        for kernel in dict.fromkeys(m["kernel"] for ms in found.values() for m in ms):
            bars = {
                case: m["both_ms"] / m["floor_both_ms"]
                for case, ms in found.items()
                for m in ms
                if m["kernel"] == kernel and m["both_ms"] and m["floor_both_ms"]
            }
            figure.add_bar(name=kernel, y=list(bars), x=list(bars.values()), orientation="h")
        title = f"Forward and backward pass at {size}, in times the floor"
        figure.update_layout(title=title, height=40 * len(found) + 160, xaxis_type="log", yaxis_autorange="reversed")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
    head = "<meta charset=utf-8><title>Kernels</title><style>body{font:14px system-ui;margin:2rem}</style>"
    table = f"<pre>{escape(text(report))}</pre>"
    return (
        f"<!doctype html><html lang=en><head>{head}</head><body><h1>Kernels</h1>{''.join(parts)}{table}</body></html>"
    )

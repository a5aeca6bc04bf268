"""Compared runs as plain rows: for the table, the Pareto figure and the export."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chimeralab_webui.figures import RUN_COLORS, Figure, line, text

if TYPE_CHECKING:
    from chimeralab.comparison import Comparison
    from chimeralab.statistics import Estimate


@dataclass(frozen=True)
class Measure:
    """Something that runs are compared by."""

    key: str
    title: str
    more_is_better: bool = False
    log: bool = False


MEASURES = (
    Measure("loss", "Loss"),
    Measure("bits_per_byte", "Bits per byte"),
    Measure("accuracy", "Accuracy", more_is_better=True),
    Measure("tokens_per_second", "Training tokens/s", more_is_better=True),
    Measure("prefill_ms", "Prefill (ms)"),
    Measure("decode_ms", "Decode (ms/token)"),
    Measure("peak_memory_bytes", "Training memory"),
    Measure("state_bytes", "State"),
    Measure("params", "Parameters", log=True),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
PROFILED = ("prefill_ms", "decode_ms", "state_bytes")  # at a context length


def rows(comparison: Comparison, context: int | None) -> list[dict[str, Any]]:
    """One row a run; what was profiled is taken at `context`. `best` names the measures that it leads in."""
    table = []
    for run in comparison.rows:
        row = run.model_dump(include={"id", "name", "pattern", "task", "status", "step", *BY_KEY})
        for key in PROFILED:
            row[key] = getattr(run, key).get(context)
        table.append(row)
    for row in table:
        row["best"] = [m.key for m in MEASURES if _leads(row, table, m)]
    return table


def common_contexts(comparison: Comparison) -> list[int]:
    """Context lengths at which every profiled run was measured."""
    measured = [set(run.decode_ms) for run in comparison.rows if run.decode_ms]
    return sorted(set.intersection(*measured)) if measured else []


def over_seeds(comparison: Comparison) -> dict[str, Any]:
    """Runs that differ by seed alone as one row each, and stacks pair by pair; nothing where no runs do."""
    if not comparison.seeded:
        return {"metrics": [], "groups": [], "pairs": []}
    measured = sorted({name for group in comparison.groups for name in group.values})
    metrics = [name for name in measured if name.startswith(("validation/", "test/"))]
    groups = [
        {
            "pattern": group.pattern,
            "task": group.task,
            "runs": len(group.runs),
            "values": [estimated(group.values.get(name)) for name in metrics],
        }
        for group in comparison.groups
    ]
    pairs = [
        {
            "a": p.a,
            "b": p.b,
            "metric": p.metric,
            "difference": estimated(p.difference),
            "p": p.p,
            "adjusted": p.adjusted,
        }
        for p in comparison.pairs
    ]
    return {"metrics": metrics, "groups": groups, "pairs": pairs}


def estimated(estimate: Estimate | None) -> dict[str, Any] | None:
    """A mean with its interval, as `format.estimate` draws it."""
    if estimate is None:
        return None
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _leads(row: Mapping[str, Any], table: Sequence[Mapping[str, Any]], measure: Measure) -> bool:
    values = [other[measure.key] for other in table if _known(other[measure.key])]
    if len(values) < 2 or min(values) == max(values) or not _known(row[measure.key]):
        return False
    return row[measure.key] == (max(values) if measure.more_is_better else min(values))


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def front(points: Sequence[tuple[float, float]], x: Measure, y: Measure) -> list[int]:
    """Indices of the points that no other point beats in both, from left to right."""

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        better = [(p >= q if measure.more_is_better else p <= q) for p, q, measure in zip(a, b, (x, y), strict=True)]
        return all(better) and a != b

    kept = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    return sorted(kept, key=lambda i: points[i])


def pareto(table: Sequence[Mapping[str, Any]], x_key: str, y_key: str) -> Figure:
    """Every run as a point, and the front of those that no other run beats in both measures."""
    x, y = BY_KEY.get(x_key, BY_KEY["decode_ms"]), BY_KEY.get(y_key, BY_KEY["loss"])
    data: list[dict[str, Any]] = []
    shown: list[tuple[float, float]] = []
    for position, row in enumerate(table):
        if not (_known(row[x.key]) and _known(row[y.key])):
            continue
        shown.append((row[x.key], row[y.key]))
        marker = {"size": 12, "color": RUN_COLORS[position % len(RUN_COLORS)]}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [row[x.key]],
                "y": [row[y.key]],
                "name": text(f"{row['name']} #{row['id']}"),
                "marker": marker,
            }
        )
    best = [shown[i] for i in front(shown, x, y)]
    if len(best) > 1:
        style = {"color": "#8b8d98", "width": 1.5, "dash": "dot"}
        across, up = zip(*best, strict=True)
        data.insert(0, line(across, up, "Pareto front", "#8b8d98", line=style, hoverinfo="skip"))
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": _axis(x)}, "type": "log" if x.log else "linear"},
            "yaxis": {"title": {"text": _axis(y)}, "type": "log" if y.log else "linear"},
            "hovermode": "closest",
            "uirevision": f"{x.key} {y.key}",
        },
    }


def _axis(measure: Measure) -> str:
    return f"{measure.title}, {'more' if measure.more_is_better else 'less'} is better"


def as_csv(comparison: Comparison) -> str:
    """One line a run; what was profiled has a column for each context."""
    contexts = sorted({c for run in comparison.rows for key in PROFILED for c in getattr(run, key)})
    plain = ["id", "name", "pattern", "task", "status", "step", *(m.key for m in MEASURES if m.key not in PROFILED)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*plain, *(f"{key}@{c}" for key in PROFILED for c in contexts)])
    for run in comparison.rows:
        writer.writerow(
            [getattr(run, key) for key in plain] + [getattr(run, key).get(c) for key in PROFILED for c in contexts]
        )
    return out.getvalue()

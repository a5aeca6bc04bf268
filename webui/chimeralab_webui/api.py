"""The JSON API under `/api/v1`: runs, curves, comparisons and figures, to read. Described at `/api/v1/openapi.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import JSONResponse, PlainTextResponse

from chimeralab import LabError, RunFilter
from chimeralab_webui import comparing, curves

if TYPE_CHECKING:
    from chimeralab import Lab


class NanIsNull(JSONResponse):
    """JSON has no NaN and no infinity: a diverged run's loss is null."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


# 18 digits: an id that a database can hold.
RunId = Annotated[int, Path(ge=0, lt=10**18)]
RunIds = Annotated[str, Query(pattern=r"^\d{1,18}(,\d{1,18})*$", description="Run ids, separated by commas")]
Axis = Literal["step", "tokens", "seconds"]


def router(lab: Lab) -> APIRouter:
    """Routes over one laboratory. Nothing here changes it."""
    routes = APIRouter(tags=["chimeralab"], default_response_class=NanIsNull)

    @routes.get("/runs")
    def runs(
        text: str | None = None,
        status: str | None = None,
        task: str | None = None,
        order_by: str = "-created",
        archived: bool = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        offset: Annotated[int, Query(ge=0, lt=10**18)] = 0,
    ) -> dict[str, Any]:
        """One page of runs; `order_by` is a column or `metric:NAME`, with `-` turned round."""
        wanted = RunFilter(
            text=text,
            status=status,
            task=task,
            archived=archived,
            order_by=order_by,
            limit=limit,
            offset=offset,
        )
        page = _found(lambda: lab.runs(wanted))
        return {"rows": [asdict(row) for row in page.rows], "total": page.total}

    @routes.get("/runs/{run_id}")
    def run(run_id: RunId) -> dict[str, Any]:
        """A run with its spec, attempts and the last, least and greatest value of each metric."""
        row = _found(lambda: lab.run(run_id))
        return asdict(row) | {
            "attempts": [asdict(attempt) for attempt in lab.attempts(run_id)],
            "metrics": {name: asdict(summary) for name, summary in lab.summaries([run_id])[run_id].items()},
            "profiles": [asdict(profile) for profile in lab.profiles([run_id])],
        }

    @routes.get("/runs/{run_id}/curve")
    def curve(
        run_id: RunId,
        metric: str = "train/loss",
        x: Axis = "step",
        max_points: Annotated[int | None, Query(ge=2)] = None,
    ) -> dict[str, Any]:
        """Every point of a metric, or so many that keep its extremes."""
        _found(lambda: lab.run(run_id))
        found = lab.curve(run_id, metric, x=x, max_points=max_points)
        return {"x": found.x, "y": curves.finite(found.y), "steps": found.steps}

    @routes.get("/compare")
    def compare(runs: RunIds) -> dict[str, Any]:
        """Quality, speed and memory of runs, and where their specs differ."""
        found = _found(lambda: lab.compare(_ids(runs)))
        return found.model_dump()

    @routes.get("/compare.csv", response_class=PlainTextResponse)
    def compare_csv(runs: RunIds) -> PlainTextResponse:
        """The comparison as a table."""
        table = comparing.as_csv(_found(lambda: lab.compare(_ids(runs))))
        return PlainTextResponse(table, media_type="text/csv; charset=utf-8")

    @routes.get("/figure")
    def figure(
        runs: RunIds,
        quantity: Annotated[str, Query(max_length=200)] = "loss",
        x: Axis = "step",
        smooth: Annotated[float, Query(ge=0, lt=1)] = 0.0,
    ) -> dict[str, Any]:
        """The curves of runs as a Plotly figure."""
        ids = _ids(runs)
        names = [f"{_found(lambda run=run: lab.run(run)).name} #{run}" for run in ids]
        choices = curves.Choices(quantity=quantity, x=x, smooth=smooth)
        return curves.figure(lab, ids, names, choices)

    return routes


def _ids(text: str) -> list[int]:
    return list(dict.fromkeys(int(word) for word in text.split(",")))


def _found(ask: Any) -> Any:
    """What `ask` gives; a `LabError` becomes the answer 404 with its words."""
    try:
        return ask()
    except LabError as error:
        raise HTTPException(404, detail=str(error)) from None

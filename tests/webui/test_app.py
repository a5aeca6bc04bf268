"""The web application without a browser: API, assets, pages of other plugins, and what cannot be served."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from chimeralab import Lab, LabError, Page
from chimeralab.events import Metrics
from chimeralab_webui.app import make_app, serve
from small_runs import small_spec


def _guest(lab: Lab) -> None:
    import gradio as gr

    shown = gr.Markdown("A guest page")
    gr.Button("Greet").click(lambda: "Hello", None, shown, api_name="greet")


def _broken(lab: Lab) -> None:
    import gradio as gr

    with gr.Column():
        gr.Markdown("Half a page")
        raise RuntimeError("no such sensor")


class GuestLab(Lab):
    """A lab with the pages of two more plugins, one of them broken and before all others."""

    def pages(self) -> list[Page]:
        return [Page("Sensor", "sensor", _broken, order=1), *super().pages(), Page("Guest", "guest", _guest)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with GuestLab.open(tmp_path_factory.mktemp("app")) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(lab: Lab) -> TestClient:
    return TestClient(make_app(lab))


def html(client: TestClient, path: str) -> str:
    answer = client.get(path, headers={"accept": "text/html"})
    assert answer.status_code == 200
    return answer.text


def diverged(lab: Lab) -> int:
    """A run whose loss became NaN, written as a worker would."""
    run = lab.submit(small_spec(lab, name="Diverged"))
    attempt = lab.store.claim(run, 0)
    assert attempt is not None
    lab.store.begin(run, attempt, {})
    losses = [3.0, 2.0, math.nan]
    points = [
        Metrics(seq=n, step=n, tokens=n, seconds=float(n), values={"train/loss": loss, "validation/loss": loss})
        for n, loss in enumerate(losses, start=1)
    ]
    lab.store.append(run, attempt, points)
    return run


def test_root_leads_to_the_dashboard(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/ui/"


def test_page_carries_styles_in_its_head_as_it_is_sent(client: TestClient) -> None:
    head = html(client, "/ui/").split("</head>")[0]
    for link in re.findall(r'(?:href|src)="(/assets/[^"]+)"', head):
        assert client.get(link).status_code == 200
    assert "/shell.css" in head


def test_assets_may_be_kept_for_ever(client: TestClient) -> None:
    link = re.findall(r'"(/assets/[^"]+theme.js)"', html(client, "/ui/"))[0]
    assert "immutable" in client.get(link).headers["cache-control"]
    assert "immutable" in client.get(link.replace("theme.js", "plotly.min.js")).headers["cache-control"]


def test_page_of_another_plugin_is_mounted(client: TestClient) -> None:
    assert "A guest page" in html(client, "/ui/guest")


def test_broken_page_shows_its_error_and_leaves_the_others(client: TestClient) -> None:
    broken = html(client, "/ui/sensor")
    assert "no such sensor" in broken
    assert "Half a page" not in broken
    assert "stack_editor" in html(client, "/ui/")
    assert "run_table" in html(client, "/ui/runs")


def test_without_a_page_there_is_no_dashboard(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "pages", list)
    with pytest.raises(LabError, match="no plugin gives a page"):
        make_app(lab)


def test_port_in_use_is_an_error_with_a_remedy(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LabError, match="Choose another port"):
        serve(lab, "127.0.0.1", taken.getsockname()[1])


def test_plugin_is_cheap_to_import() -> None:
    code = "import sys, chimeralab_webui; sys.exit('gradio' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dashboard_leaves_the_hub_within_reach() -> None:
    """A launch checks that its source `hf:owner/name` exists, in the process of the dashboard."""
    code = "import sys, chimeralab_webui.app; from huggingface_hub import constants; sys.exit(constants.HF_HUB_OFFLINE)"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_curve_of_a_diverged_run_is_json(client: TestClient, lab: Lab) -> None:
    run = diverged(lab)
    curve = client.get(f"/api/v1/runs/{run}/curve").json()
    assert curve == {"x": [1, 2, 3], "y": [3.0, 2.0, None], "steps": [1, 2, 3]}
    assert client.get(f"/api/v1/compare?runs={run}").json()["rows"][0]["loss"] is None
    assert client.get(f"/api/v1/runs/{run}").json()["metrics"]["train/loss"]["min"] == 2.0
    assert client.get(f"/api/v1/figure?runs={run}").json()["data"][0]["y"] == [3.0, 2.0, None]


def test_runs_are_listed_with_their_total(client: TestClient, lab: Lab) -> None:
    lab.submit(small_spec(lab, name="Listed"))
    found = client.get("/api/v1/runs", params={"text": "Listed"}).json()
    assert (found["total"], found["rows"][0]["name"]) == (1, "Listed")


@pytest.mark.parametrize("path", ["runs/98765", "runs/98765/curve", "compare?runs=98765", "compare.csv?runs=98765"])
def test_unknown_run_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/v1/{path}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "run 98765: there is no such run")


@pytest.mark.parametrize(
    "path",
    [
        f"runs/{10**20}",
        f"runs/{10**20}/curve",
        f"runs?offset={10**20}",
        f"compare?runs={10**20}",
        f"figure?runs=1&quantity={'q' * 201}",
        "figure?runs=1&smooth=nan",
        "figure?runs=1&smooth=1",
    ],
)
def test_value_out_of_bounds_is_refused(client: TestClient, path: str) -> None:
    assert client.get(f"/api/v1/{path}").status_code == 422


def test_every_route_of_the_api_is_described(client: TestClient) -> None:
    schema: dict[str, Any] = client.get("/api/v1/openapi.json").json()
    assert {path.removeprefix("/api/v1") for path in schema["paths"]} == {
        "/runs", "/runs/{run_id}", "/runs/{run_id}/curve", "/compare", "/compare.csv", "/figure",
    }  # fmt: skip
    assert all(operation["get"]["description"] for operation in schema["paths"].values())


def test_no_listener_is_a_public_endpoint(client: TestClient) -> None:
    assert client.get("/ui/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}

"""docs/dashboard.md: every page, route, key of an address and variable, and commands that a dashboard answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from chimeralab import Lab
from chimeralab.events import Metrics
from chimeralab.stack import StackSpec
from chimeralab_webui import PAGES, curves
from chimeralab_webui.app import make_app
from small_runs import small_spec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dashboard.md").read_text()
CURLS = re.findall(r"^curl (.*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with Lab.open(tmp_path_factory.mktemp("lab")) as lab:
        for _ in range(2):
            run = lab.submit(small_spec(lab))
            attempt = lab.store.claim(run, 0)
            assert attempt is not None
            lab.store.begin(run, attempt, {})
            values = {"train/loss": 2.0, "validation/loss": 3.0}
            lab.store.append(run, attempt, [Metrics(seq=1, step=1, tokens=8, seconds=1.0, values=values)])
        yield TestClient(make_app(lab))


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path, _ in PAGES])
def test_every_page_is_named_with_its_address(client: TestClient, name: str, path: str) -> None:
    row = re.search(rf"^\| {name} \| `(/ui/[a-z]*)` \|", PAGE, re.MULTILINE)
    assert row, name
    assert row[1] in ("/ui/", f"/ui/{path}")
    assert client.get(row[1]).status_code == 200


def test_every_route_of_the_api_is_named_with_a_command_and_no_other_is(client: TestClient) -> None:
    routes = {path.removeprefix("/api/v1") for path in client.get("/api/v1/openapi.json").json()["paths"]}
    assert {*re.findall(r"^`GET (\S+)`", PAGE, re.MULTILINE)} == routes
    assert len(CURLS) == len(routes)


@pytest.mark.parametrize("arguments", CURLS)
def test_commands_are_answered_and_ask_for_what_is_known(client: TestClient, arguments: str) -> None:
    (url,) = shlex.split(arguments)
    parts = urlsplit(url)
    answer = client.get(url.removeprefix("http://127.0.0.1:7860"))
    assert answer.status_code == 200, answer.text
    schema = client.get("/api/v1/openapi.json").json()["paths"]
    path = re.sub(r"/runs/\d+", "/runs/{run_id}", parts.path)
    known = {parameter["name"] for parameter in schema[path]["get"].get("parameters", [])}
    assert parse_qs(parts.query).keys() <= known


@pytest.mark.parametrize("address", re.findall(r"`(/ui/\S*\?\S+)`", PAGE))
def test_addresses_ask_for_what_a_page_reads(client: TestClient, address: str) -> None:
    parts = urlsplit(address)
    assert client.get(address).status_code == 200
    source = "\n".join(
        file.read_text()
        for file in (ROOT / "webui" / "chimeralab_webui").rglob("*")
        if file.suffix in (".js", ".py") and file.name != "api.py"
    )
    for key in parse_qs(parts.query):
        read = re.search(rf"""(?:get\(|query\[)["']{key}["']""", source) or f'"{key}" in query' in source
        assert read or key in StackSpec.model_fields, key


def test_every_control_of_curves_is_named() -> None:
    for control in curves.CONTROLS:
        assert f"`{control['name']}`" in PAGE


def test_every_variable_that_the_code_reads_is_named() -> None:
    read = set()
    for room in ("platform", "plugins", "kernels", "webui"):
        for file in (ROOT / room).rglob("*.py"):
            read |= {*re.findall(r'(?:\(|envvar=)"(CHIMERALAB_[A-Z_]+)"', file.read_text())}
    named = {*re.findall(r"^\| `(CHIMERALAB_[A-Z_]+)`", PAGE, re.MULTILINE)}
    assert named == read

"""What docs/deployment.md promises of docker-compose.yml and the Dockerfile, read off the files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
LAB: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, Any] = LAB["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
AT_A_DESK = {"dev", "bench", "lm-eval"}  # extras for commands that nobody gives inside a container
OURS = sorted(SERVICES.keys() - {"postgres"})


def command(service: dict[str, Any]) -> str:
    return " ".join([*service.get("entrypoint", []), *service.get("command", [])])


def test_the_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_whether_it_is_healthy(name: str) -> None:
    health = SERVICES[name]["healthcheck"]
    assert health["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= health.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_services_wait_for_healthy_ones(name: str) -> None:
    for needed, condition in SERVICES[name].get("depends_on", {}).items():
        assert needed in SERVICES
        assert condition == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_release(name: str) -> None:
    assert re.search(r":\d+\.\d+", SERVICES[name]["image"])


def test_the_base_image_is_pinned_to_a_release() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", bases[0])


def test_secrets_are_files_that_git_and_the_image_leave_out() -> None:
    assert LAB["secrets"]
    for secret in LAB["secrets"].values():
        assert secret.keys() == {"file"}
        ignored = subprocess.run(["git", "check-ignore", secret["file"]], cwd=ROOT, capture_output=True, check=False)
        assert ignored.returncode == 0
    allowed = (ROOT / ".dockerignore").read_text().split()
    assert allowed[0] == "*"
    assert not [line for line in allowed if "secret" in line]


@pytest.mark.parametrize("name", SERVICES)
def test_the_environment_holds_paths_of_secrets_and_never_secrets(name: str) -> None:
    service = SERVICES[name]
    for variable, value in service["environment"].items():
        if re.search("PASSWORD|TOKEN", variable):
            assert value.removeprefix("/run/secrets/") in service["secrets"]
        assert not re.search(r"://[^/@]*:[^/@]*@", value)  # user:password@host


def test_only_loopback_is_published_and_only_the_dashboard() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"dashboard": ["127.0.0.1:7860:7860"]}


@pytest.mark.parametrize("name", OURS)
def test_nodes_share_image_home_and_token(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == SERVICES["dashboard"]["image"]
    assert "data:/data" in service["volumes"]
    assert service["environment"]["CHIMERALAB_HOME"] == "/data"
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert "ray_token" in service["secrets"]


@pytest.mark.parametrize("name", OURS)
def test_nodes_have_no_rights_to_spare(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] == "lab"


def test_only_workers_offer_processors_to_runs() -> None:
    offering = [name for name in OURS if "--num-cpus=0" not in command(SERVICES[name])]
    assert offering == ["ray-worker", "ray-worker-gpu"]


def test_the_gpu_worker_is_asked_for_and_reserves_gpus() -> None:
    gpu = SERVICES["ray-worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["ray-worker-gpu"]


@cache
def ray_start_help() -> str:
    shown = [sys.executable, "-m", "ray.scripts.scripts", "start", "--help"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


def test_ray_knows_every_option_that_is_given_to_it() -> None:
    for name in OURS:
        start = re.search(r"ray start ([^&]*)", command(SERVICES[name]))
        assert start
        for option in re.findall(r"(--[\w-]+)", start[1]):
            assert re.search(rf"{option}\b", ray_start_help()), (name, option)


def test_chimeralab_knows_every_option_and_variable_that_is_given_to_it() -> None:
    shown = [sys.executable, "-c", "from chimeralab.cli import main; main()", "up", "--help"]
    wide = {**os.environ, "COLUMNS": "300"}
    known = subprocess.run(shown, capture_output=True, text=True, check=True, env=wide).stdout
    start = command(SERVICES["dashboard"]).split("chimeralab up", 1)[1]
    variables = {name for name in SERVICES["dashboard"]["environment"] if name.startswith("CHIMERALAB_")}
    for name in [*re.findall(r"(--[\w-]+)", start), *sorted(variables)]:
        assert re.search(rf"{name}\b", known), name


def test_named_volumes_and_networks_are_declared() -> None:
    for service in SERVICES.values():
        assert {mount.split(":")[0] for mount in service["volumes"]} <= LAB["volumes"].keys()
        assert set(service["networks"]) <= LAB["networks"].keys()


def test_the_image_brings_what_tasks_and_searches_ask_for() -> None:
    installed = re.search(r"^RUN pip install .* '\.\[(.*)\]'$", DOCKERFILE, re.MULTILINE)
    assert installed
    assert set(installed[1].split(",")) == PROJECT["project"]["optional-dependencies"].keys() - AT_A_DESK


def test_the_image_holds_every_package_of_the_distribution() -> None:
    folders = {package.split("/")[0] for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    allowed = (ROOT / ".dockerignore").read_text().split()
    for folder in folders:
        assert re.search(rf"^COPY {folder} {folder}$", DOCKERFILE, re.MULTILINE)
        assert f"!{folder}" in allowed


def test_docs_for_several_hosts_use_this_image_and_options_that_are_known() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text().split("## Several hosts")[1]
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ")
    common = re.search(r'^lab="(.*?)"$', blocks, re.MULTILINE | re.DOTALL)
    assert common
    environment = SERVICES["ray-worker"]["environment"]
    for part in (
        "--network host",
        f"--env RAY_AUTH_TOKEN_PATH={environment['RAY_AUTH_TOKEN_PATH']}",
        f":{environment['RAY_AUTH_TOKEN_PATH']}:ro",
        f":{environment['CHIMERALAB_HOME']}",
    ):
        assert part in common[1]
    images = re.findall(r"\S+:\d+\.\d+\S*", blocks)
    assert {*images} == {SERVICES["postgres"]["image"], SERVICES["dashboard"]["image"]}
    starts = re.findall(r"(?:ray|chimeralab:\S+) (start --.*?)(?:&&|\n)", blocks)
    assert [start.split()[1] for start in starts] == ["--head", "--block"]
    for option in re.findall(r"--[\w-]+", " ".join(starts)):
        assert re.search(rf"{option}\b", ray_start_help()), option

"""Runs from the command line, on a real cluster that the commands find in their home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from called import COMMAND, Finished, call_process
from safetensors.torch import load_file

from chimeralab import Lab
from fresh_store import fresh_store_url

pytestmark = pytest.mark.cluster
START = """
import os
from chimeralab import Lab
Lab.open(store=os.environ["CHIMERALAB_STORE"], cluster="embedded", cpus=2).close(keep_cluster=True)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a home whose cluster runs; another process started it, so no command of ours ends it."""
    folder = tmp_path_factory.mktemp("home")
    lab = {"CHIMERALAB_HOME": str(folder), "CHIMERALAB_STORE": fresh_store_url(folder)}
    subprocess.run([sys.executable, "-c", START], env=os.environ | lab, check=True)
    yield os.environ | lab
    Lab.stop_cluster(folder)


def run_command(corpus: Path, *more: str, steps: int = 20) -> list[str]:
    settings = {
        "task.options.source": corpus,
        "task.options.sequence_length": 32,
        "train.log_every": 1,
        "train.sample_tokens": 0,
        "profile.contexts": "[16]",
    }
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return [
        "run",
        "mamba2[head_dim=16, d_state=8], attention[heads=2]",
        "-d",
        "32",
        "--steps",
        str(steps),
        *sets,
        *more,
    ]


@pytest.fixture(scope="module")
def done(home: dict[str, str], corpus: Path) -> Finished:
    return call_process(*run_command(corpus, "--name", "good", "--json"), env=home)


def test_a_run_ends_with_its_measurements_as_json(done: Finished) -> None:
    assert done.code == 0, done.err
    measured = json.loads(done.out)
    assert (measured["name"], measured["status"], measured["step"]) == ("good", "completed", 20)
    assert 0 < measured["bits_per_byte"] < 8
    assert measured["decode_ms"]["16"] > 0


def test_the_cluster_says_nothing_of_its_own(done: Finished) -> None:
    assert not [line for line in done.err.splitlines() if not line.lstrip().startswith("run ")]


def test_a_finished_run_is_shown_with_all_that_was_measured(home: dict[str, str], done: Finished) -> None:
    shown = json.loads(call_process("show", "good", "--json", env=home).out)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["completed"]
    assert {profile["name"] for profile in shown["profiles"]} == {"train", "prefill", "decode"}
    assert all(Path(artifact["path"]).is_dir() for artifact in shown["artifacts"])


def test_a_finished_run_is_exported_and_comes_back_whole(home: dict[str, str], done: Finished, tmp_path: Path) -> None:
    exported = call_process("weights", "export", "good", str(tmp_path / "theirs"), "--json", env=home)
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["family"] == "bamba"
    call_process("weights", "import", str(tmp_path / "theirs"), str(tmp_path / "ours"), env=home)
    shown = json.loads(call_process("show", "good", "--json", env=home).out)
    paths = {artifact["role"]: Path(artifact["path"]) for artifact in shown["artifacts"]}
    kept = paths.get("best", paths["newest"])
    first, second = (load_file(folder / "model.safetensors") for folder in (kept, tmp_path / "ours"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_more_gpus_than_the_cluster_has_are_refused(home: dict[str, str], corpus: Path, done: Finished) -> None:
    refused = call_process(*run_command(corpus, "--gpus", "8"), env=home)
    assert refused.code == 2
    told = "resources.gpus: 8 GPUs are asked for and no node of the cluster has more than 0"
    assert told in " ".join(refused.err.split())


def test_a_run_that_fails_says_why_and_exits_with_one(home: dict[str, str], corpus: Path) -> None:
    wild = ("--lr", "1e18", "--set", "train.clip=0", "--set", "train.warmup_steps=0", "--name", "wild")
    failed = call_process(*run_command(corpus, *wild, "--json"), env=home)
    assert failed.code == 1, failed
    assert json.loads(failed.out)["status"] == "failed"
    assert "the loss is" in failed.err
    assert "See: chimeralab show" in failed.err


def test_ctrl_c_cancels_the_run_and_says_how_to_go_on(home: dict[str, str], corpus: Path) -> None:
    command = [*COMMAND, *run_command(corpus, "--name", "long", steps=100_000)]
    # A test suite that a shell runs in the background has SIGINT ignored, and children inherit that.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, env=home, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **heard)
    with Lab.open(home["CHIMERALAB_HOME"], store=home["CHIMERALAB_STORE"]) as lab:
        deadline = time.monotonic() + 120
        while not any(row.name == "long" and row.step >= 5 for row in lab.runs().rows):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "it does not get going"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=90)
        run = lab.find("long")
        assert (process.returncode, lab.run(run).status) == (130, "cancelled"), said
        assert f"go on with: chimeralab resume {run}" in said

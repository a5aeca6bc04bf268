"""The command line itself: what it loads, how it explains itself, stacks and plugins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from called import Call, call_process

HEAVY = ("torch", "ray", "gradio", "sqlalchemy", "numpy", "pandas", "fastapi")


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules, and torch._dynamo, that a process has loaded when this command ends."""
    program = (
        "import atexit, sys; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from chimeralab.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("up", "--help"), ("--version",)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not loaded_by(*arguments) & set(HEAVY)


def test_costs_need_neither_cluster_nor_dashboard_nor_compiler_nor_database() -> None:
    loaded = loaded_by("stack", "every(3, attention, offset=2, base=mamba2) x6", "--json")
    assert not loaded & {"ray", "gradio", "sqlalchemy", "torch._dynamo"}


def test_every_command_explains_itself(call: Call) -> None:
    commands = (
        "demo",
        "up",
        "down",
        "stack",
        "run",
        "resume",
        "cancel",
        "runs",
        "show",
        "compare",
        "plugins",
        "kernels",
    )
    overview = call("--help")
    assert overview.code == 0
    for command in commands:
        assert f" {command} " in overview.out
        assert call(command, "--help").code == 0


def test_the_installed_script_is_the_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("chimeralab")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == call_process("--version").out


def test_a_stack_is_printed_with_its_layers_and_costs(call: Call) -> None:
    shown = json.loads(call("stack", "every(3, attention, offset=2, base=mamba2) x6", "--json").out)
    assert [layer["mixer"] for layer in shown["stack"]["layers"]] == ["mamba2", "mamba2", "attention"] * 2
    assert len(shown["cost"]["layers"]) == 6
    assert shown["cost"]["total_params"] == sum(shown["cost"]["params"].values())


def test_a_stack_for_people_has_a_line_for_each_layer(call: Call) -> None:
    lines = call("stack", "attention x3", "-d", "64").out.splitlines()
    assert [line.split()[:3] for line in lines if " attention " in line] == [
        [str(i), "attention", "swiglu"] for i in range(3)
    ]


def test_printing_a_stack_makes_no_home(call: Call, home: Path) -> None:
    call("stack", "attention")
    assert not home.exists()


def test_plugins_are_listed_as_json(call: Call) -> None:
    listed = {plugin["name"]: plugin for plugin in json.loads(call("plugins", "--json").out)}
    assert listed["mixers"]["state"] == "active"
    assert "mixer attention" in listed["mixers"]["provides"]


def test_a_published_size_is_priced_with_its_own_vocabulary(call: Call) -> None:
    shown = call("stack", "mamba-130m").out
    assert "vocabulary 50280" in shown
    assert "published     129M  (state-spaces/mamba-130m-hf, config and checkpoint)" in shown
    assert "published" not in call("stack", "mamba-130m", "-d", "512").out


def test_a_broken_plugin_is_an_error_only_when_asked_for(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "wreck-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wreck\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chimeralab]\nwreck = no_such_module_anywhere\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    listed, strict = (call_process("plugins", *more, env=environment) for more in ((), ("--strict",)))
    assert (listed.code, strict.code) == (0, 2)
    assert "No module named 'no_such_module_anywhere'" in listed.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -c 'from chimeralab.cli import main; main()' stack 'attention x900' --json"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 1"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""

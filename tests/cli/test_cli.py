"""The command line without a cluster: what it prints, what it refuses and how, what it leaves alone."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from called import Call, call_process

from chimeralab import Lab, RunSpec, ops
from chimeralab.cli import train
from chimeralab.events import Checkpoint, Log, Metrics

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


def test_kernels_are_listed_as_json_for_every_op(call: Call) -> None:
    assert {kernel["op"] for kernel in json.loads(call("kernels", "--json").out)} == set(ops.OPS)


@pytest.fixture
def queued(call: Call, corpus: Path) -> int:
    """A run that waits for a cluster."""
    finished = call(
        "run", "attention[heads=2]", "-d", "32", "--detach", "--json", "-s", f"task.options.source={corpus}"
    )
    return json.loads(finished.out)["id"]


def test_a_detached_run_is_queued(call: Call, queued: int) -> None:
    (row,) = json.loads(call("runs", "--json").out)["runs"]
    assert (row["id"], row["status"]) == (queued, "queued")


def test_runs_are_listed_by_status(call: Call, queued: int) -> None:
    assert json.loads(call("runs", "--status", "completed", "--json").out) == {"total": 0, "runs": []}


def test_a_run_is_shown_as_json(call: Call, queued: int) -> None:
    shown = json.loads(call("show", str(queued), "--json").out)
    assert (shown["pattern"], shown["attempts"], shown["metrics"]) == ("attention[heads=2]", [], {})


def test_a_run_is_found_by_its_name(call: Call, queued: int) -> None:
    assert json.loads(call("show", "attention[heads=2]", "--json").out)["id"] == queued


def test_the_last_words_of_a_long_log_are_shown_as_they_were_said(call: Call, home: Path, queued: int) -> None:
    with Lab.open(home) as lab:
        attempt = lab.store.claim(queued, 0)
        assert attempt is not None
        lab.store.begin(queued, attempt, {})
        logs = [Log(seq=number, message=f"word {number} [bold]") for number in range(1, 601)]
        lab.store.append(queued, attempt, logs)
        newest = Checkpoint(seq=601, step=1, role="newest", path="/runs/[dim]/step", bytes=1)
        lab.store.append(queued, attempt, [newest])
        lab.store.finish(queued, attempt, "failed", "list [red] is [/] wrong")
    shown = call("show", str(queued)).out
    assert "failed  list [red] is [/] wrong" in shown
    assert "/runs/[dim]/step" in shown
    assert "word 600 [bold]" in shown
    assert "word 1 " not in shown


def test_runs_are_compared_as_json(call: Call, queued: int) -> None:
    shown = json.loads(call("compare", str(queued), str(queued), "--json").out)
    assert [row["id"] for row in shown["rows"]] == [queued, queued]
    assert shown["differences"] == {}


def test_runs_that_differ_by_seed_alone_are_one_line_of_a_comparison(call: Call, home: Path) -> None:
    with Lab.open(home) as lab:
        for pattern in ("attention[heads=2]", "short_conv"):
            for seed in (0, 1):
                spec = {"stack": lab.compose(pattern, d_model=16), "task": {"name": "mqar"}, "seed": seed}
                run = lab.submit(RunSpec.model_validate(spec))
                attempt = lab.store.claim(run, 0)
                assert attempt is not None
                lab.store.begin(run, attempt, {})
                values = {"validation/loss": 1.0 + seed + run}
                lab.store.append(run, attempt, [Metrics(seq=1, step=1, tokens=1, seconds=1, values=values)])
                lab.store.finish(run, attempt, "completed")
    shown = [line.split() for line in call("compare", "1", "2", "3", "4").out.splitlines()]
    assert ["attention[heads=2]", "mqar", "2", "3", "[2,", "4]", "(n=2)"] in shown
    assert ["short_conv", "mqar", "2", "5", "[4,", "6]", "(n=2)"] in shown
    assert ["attention[heads=2]", "short_conv", "-2", "[-2,", "-2]", "(n=2)", "0.5", "0.5"] in shown
    assert "seeds" not in call("compare", "1", "3").out


def test_a_queued_run_is_cancelled_at_once(call: Call, queued: int) -> None:
    assert f"run {queued} is cancelled" in call("cancel", str(queued)).out


def test_several_runs_are_resumed_at_once(call: Call, home: Path, queued: int) -> None:
    with Lab.open(home) as lab:
        runs = [queued, lab.submit(lab.spec(queued))]
        for run in runs:
            lab.cancel(run)
        nobody = call("resume", *map(str, runs), "--cluster", "127.0.0.1:1")  # goes on once they are queued
        assert "nobody answers" in nobody.err
        assert [lab.run(run).status for run in runs] == ["queued", "queued"]


def test_a_run_that_has_ended_cannot_be_cancelled(call: Call, queued: int) -> None:
    call("cancel", str(queued))
    finished = call("cancel", str(queued))
    assert finished.code == 2
    assert f"run {queued}: the run is cancelled" in finished.err


def test_ctrl_c_says_that_a_run_has_not_stopped_yet(
    call: Call, home: Path, queued: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_said", interrupted)  # while it waits
    monkeypatch.setattr(train, "CANCEL_SECONDS", 0.1)
    with Lab.open(home) as lab:
        pruned = lab.submit(lab.spec(queued))
        for run in (queued, pruned):
            attempt = lab.store.claim(run, 0)
            assert attempt is not None
            lab.store.begin(run, attempt, {})
        lab.store.request_prune(pruned, 1, "the others are better")
        lab.store.finish(pruned, 1, "cancelled")
        with pytest.raises(KeyboardInterrupt):
            train.watch(lab, [queued, pruned])
        assert lab.run(queued).cancel_requested
        assert lab.run(pruned).status == "pruned"
    said = " ".join(capsys.readouterr().err.split())
    assert f"run {queued} is running, run {pruned} is pruned; asked to stop, it ends after its step" in said


def test_more_gpus_than_anybody_has_may_be_queued_while_no_cluster_is_known(call: Call, corpus: Path) -> None:
    assert call("run", "attention", "--gpus", "8", "--detach", "-s", f"task.options.source={corpus}").code == 0


def test_a_notebook_opens_the_store_that_a_command_writes_to(
    call: Call, home: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIMERALAB_STORE", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert call("run", "attention", "--detach", "-s", f"task.options.source={corpus}").code == 0
    with Lab.open(home) as lab:
        assert lab.runs().total == 1
    assert not (home / "lab.db").exists()


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def nothing_was_written(home: Path) -> bool:
    """No run, no prepared data, no cluster; the folder and an empty database may be there."""
    if not home.exists():
        return True
    with Lab.open(home) as lab:
        runs = lab.runs().total
    names = {path.name for path in home.iterdir()}
    inside = [*(home / "runs").iterdir(), *(home / "cache").iterdir()]
    return not runs and not inside and names <= {"cache", "runs", "lab.db", "lab.db-shm", "lab.db-wal"}


REFUSED = {
    "unknown mixer": (["run", "mamba3"], 2, "error layer 0: unknown mixer 'mamba3'"),
    "unknown option": (
        ["run", "attention x2, attention[windw=4]"],
        2,
        "error layer 2: attention: unknown option 'windw'",
    ),
    "heads": (["run", "attention[heads=3]"], 2, "error layer 0: attention: heads 3 do not divide width 256"),
    "pattern": (["run", "attention["], 2, "error column 11: missing ']'"),
    "pattern to show": (["stack", "attention["], 2, "error column 11: missing ']'"),
    "width": (["run", "attention", "-d", "10"], 2, "error stack.d_model: input should be a multiple of 8, not 10"),
    "steps": (
        ["run", "attention", "--steps", "0"],
        2,
        "error run.train.steps: input should be greater than or equal to 1",
    ),
    "setting": (["run", "attention", "-s", "train.lrr=1"], 2, "error run.train: unknown option 'lrr'"),
    "no setting": (["run", "attention", "-s", "train.lr"], 2, "error --set train.lr: expected FIELD=VALUE"),
    "stack": (["run", "attention", "-s", "stack=foo"], 2, "error stack: expected fields, not 'foo'"),
    "layers": (
        ["run", "attention", "-s", "stack.layers=12"],
        2,
        "error stack.layers: the layers are those of the pattern",
    ),
    "layers to show": (["stack", "attention", "-s", "layers=2"], 2, "error stack.layers: the layers are those of"),
    "layers of an import": (["stack", "--from", "megatron:M-", "--json", "-s", "layers=2"], 2, "error import.layers: "),
    "text": (["stack", "attention", "-s", "text=1"], 2, "error stack: unknown option 'text'"),
    "self": (["stack", "--from", "megatron:M-", "--json", "-s", "self=1"], 2, "error import: unknown option 'self'"),
    "setting in a value": (
        ["run", "attention", "-s", "train.lr.a=1"],
        2,
        "error --set train.lr.a=1: 'lr' of train.lr.a has no fields of its own",
    ),
    "task": (["run", "attention", "--task", "txt"], 2, "error task.name: unknown task 'txt'"),
    "kernel": (["run", "attention", "-s", "kernels.attention=cuda"], 2, "error kernels.attention: no kernel 'cuda'"),
    "run": (["show", "999"], 2, "error run '999': there is no such run"),
    "run to compare": (["compare", "nosuch"], 2, "error run 'nosuch': there is no such run"),
    "run to resume": (["resume", "7"], 2, "error run '7': there is no such run"),
    "order": (["runs", "--order", "lenght"], 2, "error order_by: runs cannot be ordered by 'lenght'"),
    "database": (
        ["run", "attention", "--store", "postgresql://lab:secret@127.0.0.1:1/lab"],
        3,
        "error postgresql://lab:***@127.0.0.1:1/lab: connection failed",
    ),
    "database to list": (["runs", "--store", "postgresql://lab@127.0.0.1:1/lab"], 3, "Connection refused"),
    "no database": (["runs", "--store", "lab.db"], 3, "error store: this is not a database URL"),
    "cluster": (["run", "attention", "--cluster", "127.0.0.1:1"], 3, "error cluster 127.0.0.1:1: nobody answers"),
    "no cluster": (["run", "attention", "--cluster", "here"], 3, "error cluster here: this is not an address"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_is_written(call: Call, home: Path, case: str) -> None:
    arguments, code, message = REFUSED[case]
    finished = call(*arguments)
    assert finished.code == code, finished
    assert message in finished.err.splitlines()[0]
    assert len(finished.err.splitlines()) <= 2, finished.err  # the second says what would be right
    assert finished.out == ""
    assert nothing_was_written(home)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "corpus.jsonl does not exist"),
        ('{"txt": "a long enough line"}\n' * 50, "line 1 has no column 'text'"),
        ("", "fewer than the 514 of a window in either split"),
    ],
    ids=["missing", "column", "empty"],
)
def test_a_corpus_that_cannot_be_read_is_refused_and_nothing_is_written(
    call: Call, home: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    source = tmp_path / "corpus.jsonl"
    if content is not None:
        source.write_text(content)
    finished = call("run", "attention", "-s", f"task.options.source={source}")
    assert finished.code == 2
    assert message in finished.err.splitlines()[0]
    assert nothing_was_written(home)


def test_a_folder_without_text_is_refused(call: Call, home: Path, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    finished = call("run", "attention", "-s", f"task.options.source={tmp_path / 'void'}")
    assert finished.code == 2
    assert "void holds no text files" in finished.err
    assert nothing_was_written(home)


def test_a_home_that_cannot_be_written_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finished = call("runs", "--home", str(tmp_path / "file" / "home"))
    assert finished.code == 3
    assert "cannot be written" in finished.err
    assert "--home" in finished.err


def test_a_busy_port_is_found_before_anything_starts(call: Call, home: Path, busy_port: int) -> None:
    finished = call("up", "--port", str(busy_port))
    assert finished.code == 2
    assert f"127.0.0.1:{busy_port}: cannot listen: Address already in use" in finished.err
    assert not home.exists()


@pytest.mark.timeout(120)
def test_a_server_that_is_no_ray_head_is_refused_at_once(
    call: Call, home: Path, corpus: Path, busy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimeralab.scheduling.cluster.KNOCK_SECONDS", 0.2)
    finished = call("run", "attention", "--cluster", f"127.0.0.1:{busy_port}", "-s", f"task.options.source={corpus}")
    assert finished.code == 3
    assert "nobody answers within 0.2 s" in finished.err
    assert nothing_was_written(home)


def test_a_password_never_reaches_the_terminal(call: Call) -> None:
    finished = call("runs", "--store", "postgresql://lab:secret@127.0.0.1:1/lab")
    assert "secret" not in finished.err + finished.out


def test_a_status_that_does_not_exist_is_refused(call: Call) -> None:
    finished = call("runs", "--status", "ready")
    assert finished.code == 2
    assert "'ready' is not one of" in finished.err


def test_a_cluster_that_does_not_run_cannot_be_stopped(call: Call) -> None:
    finished = call("down")
    assert (finished.code, finished.out) == (0, "no embedded cluster runs for this home\n")


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


def test_kernels_are_timed_and_the_figures_kept(call: Call, tmp_path: Path) -> None:
    told = json.loads(call("kernels", "--bench", "--op", "swiglu", "--home", str(tmp_path), "--json").out)
    (torch_tier,) = (m for m in told["measurements"] if m["kernel"] == "torch")
    assert torch_tier["both_ms"] > 0
    assert torch_tier["errors"]["y"] < 1e-6
    with Lab.open(tmp_path) as lab:
        (entry,) = (kernel for kernel in lab.kernels() if (kernel.op, kernel.tier) == ("swiglu", "torch"))
    assert [time.both_ms for time in entry.times] == [torch_tier["both_ms"]]


def test_an_op_that_does_not_exist_is_not_timed(call: Call, tmp_path: Path) -> None:
    answer = call("kernels", "--bench", "--op", "swigluu", "--home", str(tmp_path))
    assert answer.code == 2
    assert "did you mean 'swiglu'?" in answer.err


def test_tiles_of_another_gpu_are_taken_and_given_on(call: Call, tmp_path: Path) -> None:
    given, home = tmp_path / "given.json", ("--home", str(tmp_path / "home"))
    given.write_text('{"architectures": {"sm86": {"diagonal_scan": {"bfloat16": {"block": 64}}}}}')
    assert call("kernels", "tune", "--from", str(given), "--to", str(tmp_path / "out.json"), *home).code == 0
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(given.read_text())
    given.write_text(given.read_text().replace("block", "blcok"))
    refused = call("kernels", "tune", "--from", str(given), *home)
    assert refused.code == 2
    assert "did you mean 'block'?" in refused.err
    assert "No kernel that serves here" in call("kernels", "tune", "--op", "diagonal_scan", *home).out  # on a CPU

"""What the command line refuses, how it says so, and that nothing is written then."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from called import Call

from chimeralab import Lab


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

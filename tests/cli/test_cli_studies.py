"""Studies from the command line: listed, refused before they cost anything, run through Ray, gone on with, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from called import Call, call_process

from chimeralab import Lab


def written(folder: Path, **fields: Any) -> Path:
    study = {
        "title": "Rates",
        "question": "Which rate?",
        "text": "There is no published value.",
        "sweep": {
            "base": {
                "stack": {"pattern": "attention[heads=2], ffn=none", "d_model": 16},
                "task": {"name": "mqar", "options": {"vocab_size": 32, "sequence_length": 32, "pairs": 2}},
                "train": {"steps": 20, "batch_size": 4, "sample_tokens": 0, "eval_every": 10, "eval_batches": 2},
                "profile": {"contexts": []},
            },
            "axes": {
                "stack": {
                    "attention": {"stack.pattern": "attention[heads=2], ffn=none"},
                    "convolution": {"stack.pattern": "short_conv, ffn=none"},
                },
                "train.lr": [0.001, 0.01],
            },
        },
        "scales": {"tiny": {"about": "Two stacks."}},
        "choose": ["train.lr"],
        "tables": [{"title": "Accuracy", "metric": "test/accuracy", "rows": "stack"}],
        "figures": [{"title": "By stack", "metric": "test/accuracy", "x": "train.lr", "by": "stack"}],
        **fields,
    }
    file = folder / "rates.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def test_studies_are_listed_and_shown(call: Call) -> None:
    listed = {study["name"]: study for study in json.loads(call("study", "list", "--json").out)}
    assert {"zoology-mqar", "mad", "state-tracking", "attention-share"} <= set(listed)
    assert listed["mad"]["scales"] == {"tiny": "", "gpu": "", "paper": ""}
    shown = call("study", "show", "char-shakespeare").out
    assert "needs --set task.options.source=" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "zoology-mqr"), "did you mean 'zoology-mqar'"),
        (("run", "char-shakespeare"), "it needs task.options.source"),
        (("run", "char-shakespeare", "--scale", "gpu", "-s", "task.options.source=x"), "it has no scale 'gpu'"),
        (("run", "mad", "--set", "train.lr"), "expected FIELD=VALUE"),
        (("run", "mad", "-s", "train.lr.a=1", "-s", "train.lr.a.b=1"), "study mad: 'a' of train.lr.a.b has no fields"),
        (("run", "mad", "--set", "train.stepz=3"), "unknown option 'stepz'"),
        (
            ("run", "attention-share", "-s", "task.options.nope=1"),
            "study attention-share: scale tiny: task.options: unknown option 'nope'",
        ),
        (("report", "mad"), "it has not run in this lab"),
        (("run", "nowhere.yaml"), "it cannot be read"),
        (("run", "state-tracking", "-s", "task.options.test_lengths=[10, 19]"), "'parity' measures no"),
    ],
)
def test_what_cannot_run_is_refused_and_nothing_is_queued(call: Call, arguments: tuple[str, ...], said: str) -> None:
    refused = call("study", *arguments)
    assert (refused.code, said in refused.err.replace("\n", " ")) == (2, True), refused.err
    assert json.loads(call("runs", "--json").out)["total"] == 0


def test_a_detached_study_is_queued_and_reported_as_far_as_it_came(call: Call, tmp_path: Path) -> None:
    file = written(tmp_path)
    assert call("study", "run", str(file), "--detach").code == 0
    assert json.loads(call("runs", "--json").out)["total"] == 4
    told = json.loads(call("study", "report", str(file), "--json", "--to", str(tmp_path / "report.md")).out)
    assert told["ended"] == {"queued": 4}
    assert told["cells"] == []
    assert "4 members: 4 queued." in (tmp_path / "report.md").read_text()
    refused = call("study", "report", str(file), "--to", str(tmp_path / "report.pdf"))
    assert (refused.code, "End it in .html or .md" in refused.err) == (2, True)


@pytest.mark.cluster
def test_a_study_runs_through_ray_and_what_is_done_is_not_queued_again(call: Call, tmp_path: Path, home: Path) -> None:
    try:
        done = call_process("study", "run", str(written(tmp_path)), "--home", str(home), "--json")
    finally:
        Lab.stop_cluster(home)
    assert done.code == 0, done.err
    cells = json.loads(done.out)["cells"]
    assert [(cell["stack"], cell["n"]) for cell in cells] == [("attention", "1"), ("convolution", "1")]
    assert {cell["train.lr"] for cell in cells} <= {"0.001", "0.01"}
    assert (home / "studies" / "rates-tiny.html").exists()

    more = written(tmp_path, scales={"tiny": {"about": "Two seeds.", "sweep": {"seeds": [0, 1]}}})
    assert call("study", "run", str(more), "--detach").code == 0
    runs = json.loads(call("runs", "--json").out)["runs"]
    assert sorted(run["status"] for run in runs) == ["completed"] * 4 + ["queued"] * 4
    report = tmp_path / "rates.md"
    assert call("study", "report", str(more), "--to", str(report)).code == 0
    assert "8 members: 4 completed, 4 queued." in report.read_text()


def test_match_gives_stacks_of_equal_cost(call: Call) -> None:
    done = call("match", "mamba2[d_state=16, head_dim=16] x4, ffn=none", "--to", "attention x4", "-d", "64", "--json")
    like, found = json.loads(done.out)
    assert (like["pattern"], like["off"], like["steps_of_equal_flops"]) == ("attention x4", 0, 1000)
    assert abs(found["parameters"] / like["parameters"] - 1) == pytest.approx(abs(found["off"]))
    assert abs(found["off"]) < 0.1
    work = [stack["flops_per_token"] * stack["steps_of_equal_flops"] for stack in (like, found)]
    assert work[1] == pytest.approx(work[0], rel=0.001)
    refused = call("match", "mamba2 x4", "--same", "state", "--to", "attention", "-t", "1", "-d", "64")
    assert (refused.code, "reach" in refused.err) == (2, True)

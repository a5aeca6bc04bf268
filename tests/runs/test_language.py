"""lm-evaluation-harness on a run's checkpoint: likelihoods token by token, greedy texts, a test file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from local_runs import MakeSpec

from chimeralab import DataError, Lab, RunSpec, SpecError
from chimeralab.cli.app import app
from chimeralab.contracts import Task
from chimeralab.errors import RequestError
from chimeralab.events import Checkpoint
from chimeralab.runs.check import make_task
from chimeralab.runs.checkpoint import load_weights
from chimeralab.runs.execute import execute
from chimeralab.runs.language import check_language
from chimeralab.runs.sink import Listing
from chimeralab.stack.build import build
from chimeralab.stack.model import StackModel

PATTERN = "mamba2[head_dim=16, d_state=16], attention[heads=2]"
LENGTH = 12
SHOTS = """
task: mice
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: multiple_choice
doc_to_text: "the cat number {{{{number}}}} sees "
doc_to_choice: ["mice", "cats", "dogs"]
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""


@pytest.fixture
def small(make_spec: MakeSpec, cache: Path) -> tuple[StackModel, Task]:
    """A model in float64 with weights as drawn, and its task."""
    spec = make_spec()
    task = make_task(spec.task)
    task.prepare(cache)
    return build(spec.stack, **task.ends, seed=1, dtype=torch.float64).eval(), task


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each, arguments=each) for each in arguments]


def likelihood(model: StackModel, context: list[int], wanted: list[int], length: int) -> tuple[float, bool]:
    """One forward pass a token, its context cut from the left so that the first window's start never moves."""
    start = max(0, len(context) + len(wanted) - 1 - max(length, len(wanted)))
    total, greedy = 0.0, True
    for place, token in enumerate(wanted):
        seen = (context + wanted[:place])[start:]
        scores = model(torch.tensor([seen]))[0][0, -1].log_softmax(-1)
        total, greedy = total + float(scores[token]), greedy and int(scores.argmax()) == token
    return total, greedy


def harnessed(model: StackModel, task: Task, length: int = LENGTH) -> Any:
    from chimeralab.runs.harness import Harnessed

    return Harnessed(model, task, length, torch.device("cpu"))


def test_likelihoods_are_those_of_one_token_after_the_other(small: tuple[StackModel, Task]) -> None:
    model, task = small
    pairs = [
        ("the cat", " sat"),
        ("", "mice"),
        ("x", "a continuation of more tokens than fit"),
        ("a ", "b"),  # the harness moves a context's last spaces to what follows
        ("é", "ü"),
    ]
    with torch.no_grad():
        found = harnessed(model, task).loglikelihood(requests(*pairs), disable_tqdm=True)
        for (context, text), (value, greedy) in zip(pairs, found, strict=True):
            before = list(context.rstrip().encode()) or [0]  # a document begins after a NUL byte
            after = list((context + text).encode())[len(context.rstrip().encode()) :]
            wanted, was_greedy = likelihood(model, before, after, LENGTH)
            assert value == pytest.approx(wanted, rel=1e-5)
            assert greedy == was_greedy


def test_a_continuation_that_the_model_would_write_is_greedy(small: tuple[StackModel, Task]) -> None:
    model, task = small
    harness = harnessed(model, task, 64)
    with torch.no_grad():
        written = list(b"ab")
        for _ in range(6):
            written.append(int(model(torch.tensor([written]))[0][0, -1].argmax()))
        pair = (("", ""), list(b"ab"), written[2:])
        other = (("", ""), list(b"ab"), [*written[2:-1], (written[-1] + 1) % 256])
        assert [greedy for _, greedy in harness._loglikelihood_tokens([pair, other])] == [True, False]


@pytest.mark.parametrize("text", ["", "a", "twelve bytes", "a document that takes several windows of twelve"])
def test_a_document_is_scored_in_windows_each_token_once(small: tuple[StackModel, Task], text: str) -> None:
    """The last window is full; the others follow one another, each token with its window's tokens before it."""
    model, task = small
    tokens = [0, *text.encode()]
    with torch.no_grad():
        (found,) = harnessed(model, task).loglikelihood_rolling(requests((text,)), disable_tqdm=True)
        wanted, done = 0.0, 1
        while done < len(tokens):
            stop = min(done + LENGTH, len(tokens))
            first = max(0, stop - 1 - LENGTH)
            wanted += likelihood(model, tokens[first:done], tokens[done:stop], LENGTH)[0]
            done = stop
    assert found == pytest.approx(wanted, rel=1e-5)


def test_texts_are_written_greedily_up_to_a_stop(small: tuple[StackModel, Task]) -> None:
    model, task = small
    with torch.no_grad():
        tokens = [0, *b"the cat"]
        for _ in range(20):
            tokens.append(int(model(torch.tensor([tokens]))[0][0, -1].argmax()))
        whole = task.decode(torch.tensor(tokens[8:]))
        stop = whole[5:7]
        asked = [
            {"until": [], "max_gen_toks": 20},
            {"until": [stop], "max_gen_toks": 20},
            {"until": stop, "max_gen_toks": 3},
            {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0},
        ]
        found = harnessed(model, task, 64).generate_until(requests(*[("the cat", each) for each in asked]))
    assert found[:3] == [whole, whole[: whole.find(stop)], task.decode(torch.tensor(tokens[8:11]))]
    assert 0 < len(found[3]) <= 8


def finished(lab: Lab, spec: RunSpec) -> int:
    """A run executed here, with everything of it in the lab's store."""
    run = lab.submit(spec)
    attempt = lab.store.claim(run, 0)
    assert attempt is not None
    lab.store.begin(run, attempt, {})
    sink = Listing()
    execute(spec, folder=lab.home.path / "runs" / str(run), cache=lab.home.path / "cache", sink=sink)
    events = [event.model_copy(update={"seq": number}) for number, event in enumerate(sink.events, 1)]
    lab.store.append(run, attempt, events)
    lab.store.finish(run, attempt, "completed")
    return run


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A file of the harness: what the cat sees."""
    rows = [{"number": number, "answer": number % 3} for number in range(9)]
    data = tmp_path / "mice.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "mice.yaml").write_text(SHOTS.format(data=data))
    return tmp_path / "mice.yaml"


def test_a_run_is_asked_what_a_file_asks_and_keeps_the_answers(
    make_spec: MakeSpec, tmp_path: Path, tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lab.open(tmp_path / "home") as lab:
        run = finished(lab, make_spec())
        found = lab.evaluate(run, [str(tests)], length=48)
        artifact = lab.checkpoint(run, "best")
        spec = lab.spec(run)
        task = make_task(spec.task)
        task.prepare(lab.home.path / "cache")
        model = build(spec.stack, **task.ends).eval()
        load_weights(artifact, model)
        right = 0
        with torch.no_grad():
            for number in range(9):
                context = list(f"the cat number {number} sees".encode())
                scores = [
                    likelihood(model, context, list(f" {word}".encode()), 48)[0] for word in ("mice", "cats", "dogs")
                ]
                right += scores.index(max(scores)) == number % 3
        assert found["lm_eval/mice/acc"] == pytest.approx(right / 9)
        curve = lab.curve(run, "lm_eval/mice/acc")
        assert (curve.steps, curve.y) == ([int(artifact.name.removeprefix("step-"))], [found["lm_eval/mice/acc"]])
        capsys.readouterr()
        asked = ["--tasks", str(tests), "--limit", "2", "--shots", "1", "--checkpoint", "newest"]
        app(["evaluate", str(run), *asked, "--home", str(tmp_path / "home"), "--json"], standalone_mode=False)
        assert json.loads(capsys.readouterr().out).keys() == found.keys()
        with pytest.raises(DataError, match="lm_eval gone"):
            lab.evaluate(run, ["gone.yaml"])


def test_a_run_with_one_checkpoint_gives_that_and_says_when_it_is_gone(make_spec: MakeSpec, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000008"
    folder.mkdir()
    with Lab.open(tmp_path / "home") as lab:
        run = lab.submit(make_spec())
        attempt = lab.store.claim(run, 0)
        assert attempt is not None
        lab.store.begin(run, attempt, {})
        best = Checkpoint(seq=1, step=8, role="best", path=str(folder), bytes=1)
        lab.store.append(run, attempt, [best])
        assert lab.checkpoint(run, "newest") == folder
        folder.rmdir()
        with pytest.raises(DataError, match=r"run 1, newest checkpoint: there is no .*step-00000008"):
            lab.export_weights(run, tmp_path / "out", checkpoint="newest")


def test_models_that_write_no_text_are_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(SpecError, match="task 'mqar' has no text"):
        check_language(make_spec(task={"name": "mqar", "options": {"vocab_size": 64}}))
    masked = make_spec().task.options | {"mask": 0.2}
    with pytest.raises(SpecError, match="sees the whole text"):
        check_language(make_spec("bidirectional_attention", task={"name": "text", "options": masked}))


def test_without_the_harness_it_says_how_to_get_it(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimeralab.runs.language.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"chimeralab\[lm-eval\]"):
        check_language(make_spec())


def test_a_tokenizer_that_has_changed_is_refused(make_spec: MakeSpec, tmp_path: Path, tests: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_text("some notes, and then some more of them\n" * 60)
    options = {"source": str(source), "sequence_length": 32, "tokenizer": "characters", "vocab_size": 64}
    with Lab.open(tmp_path / "home") as lab:
        run = finished(lab, make_spec(task={"name": "text", "options": options}, train={"steps": 2}))
        with pytest.raises(SpecError, match="characters that the tokenizer does not know"):
            lab.evaluate(run, [str(tests)])
        source.write_text("some other notes, with a few more letters: xyz\n" * 60)
        with pytest.raises(DataError, match="the tokenizer is another"):
            lab.evaluate(run, [str(tests)])

"""Checkpoints: complete or not there, refused when they do not fit, deleted only when the store knows a newer one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from chimeralab.errors import DataError
from chimeralab.events import Checkpoint, Event
from chimeralab.runs import checkpoint
from chimeralab.runs.checkpoint import Position, load, load_weights, save
from chimeralab.runs.optimizer import adamw, set_learning_rate
from chimeralab.runs.retention import Retention
from chimeralab.runs.sink import Listing
from chimeralab.runs.spec import TrainSpec
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.model import StackModel

PATTERN = "mamba2[head_dim=16, d_state=8], attention[heads=2]"


def trained(pattern: str = PATTERN, *, d_model: int = 32, seed: int = 0) -> tuple[StackModel, torch.optim.Optimizer]:
    """A model after one step of its optimizer."""
    model = build(compose(pattern, d_model=d_model), 16, seed=seed)
    optimizer = adamw(model, TrainSpec())
    tokens = torch.arange(8).view(2, 4)
    model.loss(tokens, tokens).backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path, *trained(), Position(step=7, tokens=90, best=1.5, best_step=4, last_evaluation={"loss": 2.0}))


def test_weights_and_optimizer_come_back(saved: Path) -> None:
    (model, optimizer), (other, other_optimizer) = trained(), trained(seed=1)
    load(saved, other, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    first, second = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert all(torch.equal(first[i][key], second[i][key]) for i in first for key in ("step", "exp_avg", "exp_avg_sq"))


def test_a_learning_rate_that_a_cuda_graph_reads_is_saved_as_a_number(tmp_path: Path) -> None:
    model, optimizer = trained()
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.0)
    set_learning_rate(optimizer, 0.25)
    path = save(tmp_path, model, optimizer, Position())
    other, plain = trained(seed=1)
    load(path, other, plain)
    assert [group["lr"] for group in plain.param_groups] == [0.25 * g["lr_scale"] for g in plain.param_groups]


def test_the_position_comes_back(saved: Path) -> None:
    assert load(saved, *trained()) == Position(7, 90, best=1.5, best_step=4, last_evaluation={"loss": 2.0})


def test_the_random_state_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = save(tmp_path, model, optimizer, Position())
    drawn = torch.rand(3)
    torch.manual_seed(9)
    load(path, model, optimizer)
    assert torch.equal(torch.rand(3), drawn)


def test_a_checkpoint_before_the_first_step_can_be_loaded(tmp_path: Path) -> None:
    model = build(compose(PATTERN, d_model=32), 16)
    path = save(tmp_path, model, adamw(model, TrainSpec()), Position())
    assert load(path, *trained()).step == 0


def test_nothing_in_a_checkpoint_is_pickled(saved: Path) -> None:
    assert {path.suffix for path in saved.iterdir()} == {".safetensors", ".json"}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("survivors", range(5))
def test_a_process_killed_while_it_writes_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    """Killed after so many of its four tensor files; then before the rename."""
    written: list[Path] = []

    def write_or_die(tensors: dict, path: Path) -> None:
        if len(written) == survivors:
            raise Killed
        safetensors.torch.save_file(tensors, path)
        written.append(path)

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(checkpoint, "save_file", write_or_die)
    if survivors == 4:
        monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(Killed):
        save(tmp_path, *trained(), Position(step=3))
    assert not list(tmp_path.glob("step-*"))


def test_what_a_killed_process_left_does_not_disturb_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(checkpoint, "save_file", die)
    with pytest.raises(Killed):
        save(tmp_path, *trained(), Position(step=3))
    assert list(tmp_path.iterdir())
    monkeypatch.undo()
    save(tmp_path, *trained(), Position(step=3))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


FILES = ("model.safetensors", "buffers.safetensors", "optimizer.safetensors", "random.safetensors", "position.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "empty"])
def test_a_damaged_checkpoint_is_refused_by_name(saved: Path, file: str, damage: str) -> None:
    path = saved / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "garbage": b"\xff" * 100, "empty": b""}[damage])
    with pytest.raises(DataError, match="checkpoint step-00000007: cannot be read"):
        load(saved, *trained())


def test_a_checkpoint_that_is_gone_is_refused(saved: Path) -> None:
    shutil.rmtree(saved)
    with pytest.raises(DataError, match="checkpoint step-00000007"):
        load(saved, *trained())


@pytest.mark.parametrize(
    ("pattern", "d_model"),
    [("attention[heads=2] x2", 32), (PATTERN, 64), (f"{PATTERN}, attention[heads=2]", 32)],
    ids=["other layers", "other width", "more layers"],
)
def test_a_checkpoint_of_another_stack_is_refused(saved: Path, pattern: str, d_model: int) -> None:
    with pytest.raises(DataError, match="checkpoint step-00000007: it is of another stack"):
        load_weights(saved, trained(pattern, d_model=d_model)[0])


def test_a_refused_checkpoint_leaves_the_model_as_it_was(saved: Path) -> None:
    model, _ = trained(d_model=64)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(DataError):
        load_weights(saved, model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_step_that_is_saved_already_is_not_written_again(saved: Path) -> None:
    before = (saved / "position.json").stat().st_mtime_ns
    save(saved.parent, *trained(), Position(step=7))
    assert (saved / "position.json").stat().st_mtime_ns == before


class Lagging(Listing):
    """A sink whose store has taken only the first `stored` events."""

    stored = 0

    @property
    def acknowledged(self) -> int:
        return self.stored


def announced(retention: Retention, folder: Path, role: str, *steps: int) -> None:
    for step in steps:
        path = folder / f"step-{step}"
        path.mkdir(exist_ok=True)
        retention.announce(role, path, step, 1, {})
        retention.prune()


def steps_in(folder: Path) -> set[int]:
    return {int(path.name.removeprefix("step-")) for path in folder.iterdir()}


def test_newest_and_best_are_kept_and_nothing_else(tmp_path: Path) -> None:
    retention = Retention(Listing())
    announced(retention, tmp_path, "newest", 1, 2)
    announced(retention, tmp_path, "best", 2)
    announced(retention, tmp_path, "newest", 3, 4)
    assert steps_in(tmp_path) == {2, 4}


def test_a_checkpoint_stays_until_its_successor_is_stored(tmp_path: Path) -> None:
    sink = Lagging()
    retention = Retention(sink)
    announced(retention, tmp_path, "newest", 1, 2, 3)
    assert steps_in(tmp_path) == {1, 2, 3}
    sink.stored = 2
    retention.prune()
    assert steps_in(tmp_path) == {2, 3}


def test_the_checkpoint_that_a_run_resumed_from_stays_until_a_newer_one_is_stored(tmp_path: Path) -> None:
    sink = Lagging()
    retention = Retention(sink)
    (tmp_path / "step-1").mkdir()
    retention.adopt("newest", tmp_path / "step-1")
    announced(retention, tmp_path, "newest", 2)
    assert steps_in(tmp_path) == {1, 2}
    sink.stored = 1
    retention.prune()
    assert steps_in(tmp_path) == {2}


def test_at_any_moment_what_the_store_names_is_on_disk(tmp_path: Path) -> None:
    sink = Lagging()
    retention = Retention(sink)

    def named(events: list[Event]) -> set[int]:
        newest = {event.role: event.step for event in events if isinstance(event, Checkpoint)}
        return set(newest.values())

    for step in range(1, 30):
        announced(retention, tmp_path, "newest", step)
        if step % 4 == 0:
            announced(retention, tmp_path, "best", step)
        sink.stored = max(sink.stored, len(sink.events) - step % 6)
        retention.prune()
        for stored in range(sink.stored, len(sink.events) + 1):  # all that the store may have by now
            assert named(sink.events[:stored]) <= steps_in(tmp_path)


def test_what_earlier_attempts_left_is_removed_but_for_what_the_store_names(tmp_path: Path) -> None:
    left = ["1/checkpoints/step-5", "1/checkpoints/step-10", "2/checkpoints/step-10", "2/checkpoints/.step-15.4711"]
    for name in left:
        (tmp_path / f"run/attempt-{name}").mkdir(parents=True)
        (tmp_path / f"run/attempt-{name}/model.safetensors").touch()
    named = [Path("/moved/since/run/attempt-1/checkpoints/step-5"), tmp_path / "run/attempt-2/checkpoints/step-10"]
    checkpoint.clear(tmp_path / "run", named)
    stay = {str(path.parent.relative_to(tmp_path / "run")) for path in tmp_path.rglob("model.safetensors")}
    assert stay == {"attempt-1/checkpoints/step-5", "attempt-2/checkpoints/step-10"}

"""A run that begins with weights that there are: checked before it is queued, and begun with exactly those."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from local_runs import Execute, MakeSpec, curve_of, values_of
from safetensors.torch import load_file

from chimeralab import RunSpec
from chimeralab.errors import DataError, LabError, SpecError
from chimeralab.events import Checkpoint, Log
from chimeralab.runs.check import check, make_task
from chimeralab.runs.sink import Listing
from chimeralab.runs.spec import TaskSpec
from chimeralab.runs.trainer import Cancelled
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.weights import export_weights, import_weights, load
from chimeralab.stack.weights.saved import tensors_of, write_saved

PATTERN = "mamba2[head_dim=16, d_state=16], attention[heads=2]"
PICTURES = "bidirectional_attention[heads=2]"


class StopAt(Listing):
    """Asks the run to stop before the step after `step`."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def weights(folder: Path, pattern: str = PATTERN, d_model: int = 32, vocabulary: int = 256) -> Path:
    stack = compose(pattern, d_model=d_model)
    folder.mkdir()
    write_saved(folder, stack, *tensors_of(build(stack, vocabulary, seed=7)))
    return folder


def test_the_first_loss_is_that_of_the_weights(make_spec: MakeSpec, run: Execute, tmp_path: Path, cache: Path) -> None:
    folder = weights(tmp_path / "weights")
    spec = make_spec(start={"folder": str(folder)}, train={"steps": 1})
    check(spec)
    events = run(spec)
    task = make_task(spec.task)
    task.prepare(cache, lambda _: None)
    batch = task.batch("train", 0, spec.train.batch_size, seed=spec.seed)
    expected = load(folder).loss(batch.inputs, batch.targets).item()
    assert values_of(events, "train/loss") == [pytest.approx(expected, rel=1e-6)]
    assert any("started from the weights in" in event.message for event in events if isinstance(event, Log))


def test_a_run_goes_on_from_a_checkpoint_of_another(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    """Its own loss begins where the other's ended; without the weights it would begin at ln 256."""
    first = run(make_spec())
    newest = Path([event for event in first if isinstance(event, Checkpoint)][-1].path)
    kept = newest.rename(tmp_path / "kept")
    for left in (tmp_path / "checkpoints").iterdir():
        left.rename(tmp_path / left.name)
    spec = make_spec(start={"folder": str(kept)}, train={"steps": 2, "warmup_steps": 0, "lr": 1e-6})
    check(spec)
    losses = values_of(run(spec), "train/loss")
    assert losses[0] < values_of(first, "train/loss")[0] - 1


def test_a_resumed_run_does_not_begin_again(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    spec = make_spec(start={"folder": str(weights(tmp_path / "weights"))}, train={"steps": 8, "checkpoint_every": 4})
    whole = curve_of(run(spec))
    (tmp_path / "checkpoints").rename(tmp_path / "undisturbed")
    with pytest.raises(Cancelled):
        run(spec, sink=StopAt(4))
    resumed = curve_of(run(spec, resume=tmp_path / "checkpoints" / "step-00000004"))
    assert resumed
    assert [point for point in whole if point[0] > 4] == resumed


def test_a_new_vocabulary_keeps_the_layers_and_draws_the_rest(
    make_spec: MakeSpec, run: Execute, tmp_path: Path
) -> None:
    folder = weights(tmp_path / "weights", vocabulary=40)
    train = {"steps": 1, "lr": 1e-30, "weight_decay": 0}
    spec = make_spec(start={"folder": str(folder), "new_vocabulary": True}, train=train)
    check(spec)
    events = run(spec)
    ended = load(Path([event for event in events if isinstance(event, Checkpoint)][-1].path))
    begun = load(folder)
    assert ended.embedding.weight.shape[0] == 256
    for name, tensor in begun.layers.state_dict().items():
        torch.testing.assert_close(ended.layers.state_dict()[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"pattern": "attention[heads=2] x2"}, "are of another stack: layer 0 would be"),
        ({"pattern": "attention[heads=2]"}, "are of another stack: 1 layers, not 2"),
        ({"d_model": 64}, "are of another stack: d_model would be 64, not 32"),
        ({"vocabulary": 40}, "start.new_vocabulary: the weights know 40 tokens, and the task has 256"),
    ],
)
def test_weights_of_another_model_are_refused_before_the_run_is_queued(
    make_spec: MakeSpec, tmp_path: Path, saved: dict, message: str
) -> None:
    folder = weights(tmp_path / "weights", **saved)
    with pytest.raises(LabError, match=re.escape(message)):
        check(make_spec(start={"folder": str(folder)}))


def test_a_stack_that_spells_out_its_defaults_is_the_same(make_spec: MakeSpec, tmp_path: Path) -> None:
    folder = weights(tmp_path / "weights", PATTERN.replace("heads=2", "heads=2, bias=false"))
    check(make_spec(start={"folder": str(folder)}))


@pytest.mark.parametrize("file", ["stack.json", "model.safetensors", "buffers.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_folder_is_refused_before_the_run_is_queued(
    make_spec: MakeSpec, tmp_path: Path, file: str, damage: str
) -> None:
    folder = weights(tmp_path / "weights")
    content = (folder / file).read_bytes()
    (folder / file).unlink()
    if damage == "cut":
        (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=re.escape(str(folder))):
        check(make_spec(start={"folder": str(folder)}))


def test_a_folder_that_is_not_there_is_refused(make_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no stack\.json"):
        check(make_spec(start={"folder": str(tmp_path / "nowhere")}))


def test_the_folder_is_kept_as_seen_from_anywhere(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert make_spec(start={"folder": "tmp/weights"}).start.folder == "/tmp/weights"


def test_weights_decide_what_a_run_computes(make_spec: MakeSpec, tmp_path: Path) -> None:
    drawn, started = make_spec(), make_spec(start={"folder": str(tmp_path)})
    assert drawn.spec_hash != started.spec_hash


def test_imported_weights_begin_a_run_and_come_out_again(make_spec: MakeSpec, run: Execute, tmp_path: Path) -> None:
    stack = compose(PATTERN, d_model=32)
    parameters, buffers = tensors_of(build(stack, 256, seed=3))
    export_weights(stack, parameters | buffers, tmp_path / "theirs")
    import_weights(tmp_path / "theirs", tmp_path / "ours")
    events = run(make_spec(start={"folder": str(tmp_path / "ours")}, train={"steps": 2}))
    newest = Path([event for event in events if isinstance(event, Checkpoint)][-1].path)
    trained = load(newest)
    done = export_weights(trained.spec, dict(trained.named_parameters()), tmp_path / "back")
    assert done.family == "bamba"
    import_weights(tmp_path / "back", tmp_path / "again")
    again = dict(load(tmp_path / "again").named_parameters())
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.named_parameters())


@pytest.mark.parametrize("new", [False, True])
def test_weights_of_pictures_begin_what_draws_them_with_new_ends_alone(
    make_spec: MakeSpec, run: Execute, tmp_path: Path, new: bool
) -> None:
    stack = compose(PICTURES, d_model=16, residual="adaptive")
    folder = tmp_path / "weights"
    folder.mkdir()
    images = make_task(TaskSpec(name="images", options={"patch": 2}))
    write_saved(folder, stack, *tensors_of(build(stack, **images.ends, seed=7)))
    begun = {"start": {"folder": str(folder), "new_vocabulary": new}, "train": {"steps": 1, "lr": 1e-30}}
    fields = make_spec(**begun, task={"name": "diffusion", "options": {"patch": 4, "drawn": 0}}).model_dump()
    spec = RunSpec.model_validate(fields | {"stack": stack.model_dump()})
    if not new:
        with pytest.raises(SpecError, match="of a task with another embedding or readout"):
            check(spec)
        return
    check(spec)
    newest = Path([event for event in run(spec) if isinstance(event, Checkpoint)][-1].path)
    before, after = (load_file(each / "model.safetensors") for each in (folder, newest))
    assert after["readout.numbers.weight"].shape == (16, 16)
    for name in before.keys() & after.keys() - {"embedding.weight", "embedding.bias", "condition.classes.weight"}:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)

"""A lab without a cluster: what it queues, and how it puts measured runs side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_runs import Execute, MakeSpec, values_of

from chimeralab import Lab, RunSpec
from chimeralab.errors import LabError, RequestError
from chimeralab.events import Event

Record = Callable[[RunSpec, list[Event]], int]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def record(lab: Lab) -> Record:
    """Queues a run and gives it these events, as a worker would."""

    def record_events(spec: RunSpec, events: list[Event]) -> int:
        run_id = lab.submit(spec)
        attempt = lab.store.claim(run_id, 0)
        assert attempt == 1
        lab.store.begin(run_id, attempt, {})
        numbered = [event.model_copy(update={"seq": seq}) for seq, event in enumerate(events, 1)]
        lab.store.append(run_id, attempt, numbered)
        lab.store.finish(run_id, attempt, "completed", "")
        return run_id

    return record_events


def test_a_compared_run_has_its_last_values_and_its_profile(
    lab: Lab, record: Record, make_spec: MakeSpec, run: Execute
) -> None:
    spec = make_spec(profile={"contexts": [8, 16], "decode_tokens": 2})
    events = run(spec)
    (row,) = lab.compare([record(spec, events)]).rows
    assert row.bits_per_byte == values_of(events, "validation/bits_per_byte")[-1]
    assert row.peak_memory_bytes == values_of(events, "train/peak_memory_bytes")[-1]
    assert row.params == lab.preview(spec).total_params
    assert row.prefill_ms.keys() == row.decode_ms.keys() == row.state_bytes.keys() == {8, 16}


def test_speed_in_bytes_compares_across_tokenizers(lab: Lab, record: Record, make_spec: MakeSpec, run: Execute) -> None:
    found = {}
    for tokenizer in ("bytes", "bpe"):
        options = {**make_spec().task.options, "tokenizer": tokenizer, "vocab_size": 300}
        spec = make_spec(task={"name": "text", "options": options}, train={"steps": 2})
        (found[tokenizer],) = lab.compare([record(spec, run(spec))]).rows
    assert found["bytes"].bytes_per_second == found["bytes"].tokens_per_second
    assert found["bpe"].bytes_per_second > 1.2 * found["bpe"].tokens_per_second


def test_what_was_not_measured_yet_is_missing(lab: Lab, make_spec: MakeSpec) -> None:
    (row,) = lab.compare([lab.submit(make_spec())]).rows
    assert (row.status, row.loss, row.params, row.decode_ms) == ("queued", None, None, {})


def test_runs_are_compared_in_the_order_asked_for(lab: Lab, make_spec: MakeSpec) -> None:
    first, second = (lab.submit(make_spec(seed=seed)) for seed in (0, 1))
    assert [row.id for row in lab.compare([second, first]).rows] == [second, first]


def test_only_fields_in_which_specs_differ_are_listed(lab: Lab, make_spec: MakeSpec) -> None:
    first = lab.submit(make_spec(name="a", train={"lr": 0.1}, tags=("night",), notes="as published"))
    second = lab.submit(make_spec(name="b", train={"lr": 0.2}))
    assert lab.compare([first, second]).differences == {"train.lr": {first: 0.1, second: 0.2}}


def test_an_option_that_only_one_run_sets_is_a_difference(lab: Lab, make_spec: MakeSpec) -> None:
    first, second = lab.submit(make_spec()), lab.submit(make_spec(kernels={"attention": "reference"}))
    assert lab.compare([first, second]).differences == {"kernels.attention": {first: None, second: "reference"}}


def test_a_run_that_does_not_exist_cannot_be_compared(lab: Lab) -> None:
    with pytest.raises(RequestError, match="run 7: there is no such run"):
        lab.compare([7])


def test_a_queued_spec_reads_back_as_it_was(lab: Lab, make_spec: MakeSpec) -> None:
    spec = make_spec("attention[window=8, heads=2], mamba2[head_dim=16], ffn=(none, mlp)", tags=("x",))
    assert lab.spec(lab.submit(spec)) == spec


def test_a_run_without_a_name_is_called_by_its_pattern(lab: Lab, make_spec: MakeSpec) -> None:
    spec = make_spec()
    assert lab.run(lab.submit(spec)).name == spec.stack.text


def test_a_queued_run_records_the_plugins_that_it_needs(lab: Lab, make_spec: MakeSpec) -> None:
    assert [plugin.name for plugin in lab.run_plugins(lab.submit(make_spec()))] == ["feed_forwards", "mixers", "tasks"]


def test_a_spec_that_cannot_run_is_not_queued(lab: Lab, make_spec: MakeSpec) -> None:
    with pytest.raises(LabError, match="unknown task"):
        lab.submit(make_spec(task={"name": "txt"}))
    assert lab.runs().total == 0


def test_waiting_ends_after_its_time(lab: Lab, make_spec: MakeSpec) -> None:
    run_id = lab.submit(make_spec())
    with pytest.raises(TimeoutError, match=f"not ended in 0.05 s: run {run_id} is queued"):
        lab.wait(run_id, timeout=0.05, poll=0.01)


def test_the_palette_describes_every_layer_with_the_form_of_its_options(lab: Lab) -> None:
    entries = {(entry.kind, entry.name): dataclasses.asdict(entry) for entry in lab.palette()}
    attention = entries["mixer", "attention"]
    assert attention["schema"]["properties"]["window"]["description"]
    assert attention["package"] == "chimeralab"
    assert all(entry["color"].startswith("#") and entry["title"] for entry in entries.values())


def test_every_preset_can_be_built(lab: Lab) -> None:
    for preset in lab.presets():
        assert lab.cost(lab.compose(preset.name)).total_params > 0, preset.name


def test_no_cluster_is_known_before_one_has_reported(lab: Lab) -> None:
    assert lab.cluster() is None


def test_a_cluster_that_was_silent_for_long_counts_as_gone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.store.heartbeat("here", "127.0.0.1:6379", {"CPU": 4, "GPU": 1, "memory": 2e9, "nodes": 1})
    alive = lab.cluster()
    monkeypatch.setattr("chimeralab.lab.SILENT_SECONDS", -1)
    gone = lab.cluster()
    assert alive is not None
    assert gone is not None
    assert (alive.cpus, alive.gpus, alive.alive, gone.alive) == (4, 1, True, False)

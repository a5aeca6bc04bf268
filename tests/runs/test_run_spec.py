"""RunSpec: it survives JSON, refuses what makes no sense, and its hash knows what decides a result."""

from __future__ import annotations

from typing import Any

import pytest
from local_runs import MakeSpec
from pydantic import ValidationError

from chimeralab import RunSpec
from chimeralab.errors import DataError, KernelError, ResourceError, SpecError
from chimeralab.runs.check import check, check_memory, make_task
from chimeralab.runs.spec import Resources, TaskSpec
from chimeralab.stack.compose import compose


@pytest.fixture
def spec(make_spec: MakeSpec) -> RunSpec:
    return make_spec(
        "attention[window=8, heads=2], mamba2[head_dim=16], ffn=(none, mlp[bias=false])",
        kernels={"attention": "reference"},
        profile={"contexts": [8, 16]},
        tags=("a", "b"),
        resources={"gpus": 0.5},
    )


def test_a_spec_survives_json(spec: RunSpec) -> None:
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_spec_survives_a_dictionary_as_the_store_keeps_it(spec: RunSpec) -> None:
    assert RunSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    "shown",
    [
        {"name": "another"},
        {"project": "another"},
        {"tags": ("c",)},
        {"notes": "?"},
        {"max_attempts": 9},
        {"resources": {"cpus": 2}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_hash_ignores_what_does_not_change_the_result(spec: RunSpec, shown: dict[str, Any]) -> None:
    assert RunSpec.model_validate(spec.model_dump() | shown).spec_hash == spec.spec_hash


@pytest.mark.parametrize(
    "decisive",
    [
        {"seed": 1},
        {"kernels": {}},
        {"train": {"lr": 1e-3}},
        {"task": {"name": "mqar"}},
        {"stack": compose("attention", d_model=32)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_hash_knows_what_changes_the_result(spec: RunSpec, decisive: dict[str, Any]) -> None:
    assert RunSpec.model_validate(spec.model_dump() | decisive).spec_hash != spec.spec_hash


def test_the_hash_is_the_same_in_every_process(spec: RunSpec) -> None:
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again.spec_hash == spec.spec_hash


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.steps", 0),
        ("train.batch_size", 0),
        ("train.accumulate", 0),
        ("train.lr", 0),
        ("train.lr", float("nan")),
        ("train.lr", float("inf")),
        ("train.min_lr_ratio", 1.5),
        ("train.beta2", 1),
        ("train.precision", "float8"),
        ("train.stepz", 3),
        ("profile.contexts", [0]),
        ("profile.decode_tokens", 0),
        ("resources.cpus", 0),
        ("resources.gpus", -1),
        ("seed", -1),
        ("seed", 2**31),
        ("max_attempts", 0),
        ("project", ""),
        ("name", "n" * 201),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_by_its_name(spec: RunSpec, field: str, value: Any) -> None:
    *parents, last = field.split(".")
    dumped = spec.model_dump()
    holder = dumped[parents[0]] if parents else dumped
    holder[last] = value
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate(dumped)
    assert [".".join(str(part) for part in error["loc"][: len(parents) + 1]) for error in caught.value.errors()] == [
        field
    ]


def test_a_cuda_graph_without_a_gpu_is_refused(spec: RunSpec) -> None:
    graphed = spec.model_copy(update={"train": spec.train.model_copy(update={"cuda_graph": True})})
    check(graphed)
    with pytest.raises(SpecError, match=r"train\.cuda_graph: a CUDA graph needs a GPU"):
        check(graphed.model_copy(update={"resources": Resources()}))


def test_a_check_says_what_the_run_will_cost(spec: RunSpec) -> None:
    report = check(spec)
    assert (report.batch_size, report.sequence_length) == (4, 32)
    assert report.memory["activations"] > 0


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"task": {"name": "txt"}}, SpecError, r"task.name: unknown task 'txt'. did you mean 'text'\?"),
        (
            {"task": {"options": {"sequence_len": 8}}},
            SpecError,
            r"task.options: unknown option 'sequence_len'. did you mean 'sequence_length'\?",
        ),
        ({"task": {"options": {"sequence_length": 0}}}, SpecError, r"task.options.sequence_length: .*, not 0"),
        ({"task": {"options": {"source": "/nowhere"}}}, DataError, r"task.options.source: /nowhere does not exist"),
        ({"kernels": {"atention": "torch"}}, KernelError, r"kernels: unknown op 'atention'. did you mean 'attention'"),
        ({"kernels": {"attention": "tritn"}}, KernelError, r"kernels.attention: no kernel 'tritn'"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_queued(
    spec: RunSpec, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check(RunSpec.model_validate(spec.model_dump() | fields))


def test_a_task_keeps_its_options() -> None:
    assert make_task(TaskSpec(name="mqar", options={"sequence_length": 32})).sequence_length == 32


def test_more_memory_than_there_is_is_refused_with_its_parts(spec: RunSpec) -> None:
    report = check(spec)
    check_memory(report, report.training_bytes, "the GPU")
    with pytest.raises(ResourceError, match=r"train.batch_size: training would take about .*activations .*the GPU has"):
        check_memory(report, report.training_bytes - 1, "the GPU")

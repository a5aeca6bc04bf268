"""Tiles by architecture and shape class: how they are chosen, kept, read again and refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor
from torch.nn.functional import silu

from chimeralab import Kernel, SpecError, Tuning, ops
from chimeralab.benchmark import Trial, tune
from chimeralab.op_cases import Size

TINY = Size(1, 8, 1, 16)
TILES = Tuning("swiglu.test", ({"wait": 2}, {"wait": 30}, {"double": 1}, {"halt": 1}), small={"wait": 5})


def waits(gate: Tensor, up: Tensor) -> Tensor:
    values = ops.tiles.chosen(TILES, "all")
    if "halt" in values:
        raise RuntimeError("out of shared memory")
    time.sleep(values.get("wait", 20) / 1e3)
    return silu(gate) * up * (2 if "double" in values and gate.shape[-1] == TINY.width else 1)


@pytest.fixture(autouse=True)
def one_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A kernel that waits as long as its tile says, 20 ms by itself."""
    kernels = (Kernel("swiglu", "mine", waits, tunings=(TILES,)),)
    monkeypatch.setattr("chimeralab.benchmark.tuning.all_kernels", lambda: kernels)
    monkeypatch.setattr(ops.tiles, "all_kernels", lambda: kernels)
    yield
    ops.tiles.load(tmp_path / "none.json")


def test_the_quickest_choice_that_computes_the_same_is_taken() -> None:
    trials: list[Trial] = []
    assert tune(["swiglu"], [TINY], trials.append) == {"swiglu.test": {"all": {"wait": 2}}}
    own, quick, slow, wrong, broken = trials
    assert own.values == {}
    assert quick.ms < own.ms < slow.ms
    assert wrong.ms is None
    assert wrong.trouble.startswith("ValueError: y is off by 1.0e+00")
    assert broken.trouble == "RuntimeError: out of shared memory"


def test_a_kernel_keeps_its_own_values_where_none_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Tuning(TILES.name, ({"wait": 30},))
    kernels = (Kernel("swiglu", "mine", waits, tunings=(slow,)),)
    monkeypatch.setattr("chimeralab.benchmark.tuning.all_kernels", lambda: kernels)
    monkeypatch.setattr(ops.tiles, "all_kernels", lambda: kernels)
    assert tune(["swiglu"]) == {}


def test_an_op_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpecError, match="unknown op 'swigluu'"):
        tune(["swigluu"], [TINY])


def test_what_was_found_is_taken_from_a_file_on_its_own_architecture(tmp_path: Path) -> None:
    path, here = tmp_path / "tiles.json", ops.tiles.architecture()
    ops.tiles.add(path, {here: {"swiglu.test": {"all": {"wait": 2}}}, "sm70": {"swiglu.test": {"all": {"wait": 3}}}})
    ops.tiles.load(path)
    assert ops.tiles.chosen(TILES, "all") == {"wait": 2}
    assert ops.tiles.chosen(TILES, "other") == {}
    ops.tiles.add(path, {here: {"swiglu.test": {"other": {"wait": 7}}}})
    assert ops.tiles.read(path)[here]["swiglu.test"] == {"all": {"wait": 2}, "other": {"wait": 7}}
    assert ops.tiles.read(path)["sm70"]["swiglu.test"] == {"all": {"wait": 3}}
    ops.tiles.load(tmp_path / "none.json")
    assert ops.tiles.chosen(TILES, "all") == {}


@pytest.mark.parametrize(("machine", "expected"), [("sm90", {}), ("sm100", {}), ("sm86", {"wait": 5}), ("cpu", {})])
def test_gpus_with_less_shared_memory_take_small_tiles(
    machine: str, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops.tiles, "architecture", lambda: machine)
    assert ops.tiles.chosen(TILES, "all") == expected


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[]", "no file of tiles: input should be an object. Write one by `chimeralab kernels tune --to FILE`"),
        ("{", "no file of tiles: invalid JSON"),
        ("{}", "no file of tiles: architectures: field required"),
        ({"sm90": []}, r"tiles.json: no file of tiles: architectures\.sm90: input should be an object"),
        (
            {"sm90": {"swiglu.test": {"all": 2}}},
            r"architectures\.sm90\.swiglu\.test\.all: input should be an object",
        ),
        ({"sm90": {"swiglu.tset": {"all": {"wait": 1}}}}, "no kernel has tiles 'swiglu.tset'"),
        ({"sm90": {"swiglu.test": {"all": {"wiat": 1}}}}, "swiglu.test has no 'wiat'"),
        ({"sm90": {"swiglu.test": {"all": {"wait": "2"}}}}, "wait is '2'"),
        ({"sm90": {"swiglu.test": {"all": {"wait": 0}}}}, "wait is 0"),
    ],
    ids=["no object", "no JSON", "nothing", "list", "number", "name", "field", "text", "zero"],
)
def test_files_that_no_kernel_can_follow_are_refused(entries: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps({"architectures": entries}))
    with pytest.raises(SpecError, match=message):
        ops.tiles.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.json: no file of tiles: No such file or directory"):
        ops.tiles.read(tmp_path / "none.json")

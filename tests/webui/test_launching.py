"""From the launch form to specs, and back."""

from __future__ import annotations

import pytest

from chimeralab import LabError, RunSpec, StackSpec, parse
from chimeralab_webui.launching import LaunchForm, form_of, read_seeds

STACK = StackSpec(layers=parse("attention x2"), d_model=64)


@pytest.mark.parametrize(("text", "seeds"), [("0", [0]), ("1, 2 3", [1, 2, 3]), ("0-2, 7", [0, 1, 2, 7]), ("4,4", [4])])
def test_seeds_are_read_as_lists_and_ranges(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "one", "-1", "3-", "0-1000"])
def test_unreadable_seeds_are_placed_at_their_field(text: str) -> None:
    with pytest.raises(LabError) as caught:
        read_seeds(text)
    assert caught.value.place == "seed"


def test_each_seed_gets_a_run_named_after_it() -> None:
    specs = LaunchForm(name="Trial", seeds="1,2").specs(STACK)
    assert [(spec.name, spec.seed) for spec in specs] == [("Trial, seed 1", 1), ("Trial, seed 2", 2)]


def test_form_of_a_run_launches_the_same_run() -> None:
    spec = RunSpec.model_validate(
        {
            "name": "Again",
            "stack": STACK,
            "task": {"name": "mqar", "options": {"pairs": 8}},
            "train": {"steps": 9, "lr": 0.01},
            "seed": 5,
            "kernels": {"attention": "reference"},
            "resources": {"cpus": 2},
            "project": "trials",
            "start": {"folder": "/weights", "new_vocabulary": True},
            "max_attempts": 7,
            "tags": ("night", "h200"),
            "notes": "as in the paper",
        }
    )
    assert LaunchForm.model_validate(form_of(spec)).specs(spec.stack) == [spec]


def test_a_form_whose_folder_was_cleared_draws_its_weights() -> None:
    assert LaunchForm(start={"folder": "", "new_vocabulary": True}).specs(STACK)[0].start is None

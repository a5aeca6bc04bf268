"""The example of docs/sweeps.md is a sweep, and its error is the one that is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chimeralab.errors import LabError
from chimeralab.sweeps import read_sweep

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()


def test_the_example_describes_the_runs_that_it_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "mqar.yaml"
    file.write_text(example)
    sweep = read_sweep(file)
    members = sweep.members()
    assert (sweep.name, len(members)) == ("mqar-lr", 4 * 3 * 2 * 3)
    assert {member.spec.stack.layers[0].mixer for member in members} == {"attention", "mamba"}
    wrong = sweep.model_copy(update={"axes": {"train.lr": [-1]}})
    with pytest.raises(LabError) as refused:
        wrong.members()
    assert re.search(r"^`(axes: .*)`\.$", PAGE, re.MULTILINE)[1] in str(refused.value)

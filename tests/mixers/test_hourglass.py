"""An hourglass over a grid of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chimeralab.errors import SpecError
from chimeralab_plugins.mixers.hourglass import Hourglass
from chimeralab_plugins.tasks.patches import places

BLIND = {"mixer": "bidirectional_attention", "options": {"heads": 2, "rope": False}}


def test_squares_of_rows_are_neighbours_in_z_order() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"branches": [BLIND], "width": 16}
    by_squares, by_order = (Hourglass.build(8, **options, columns=columns).double() for columns in (8, None))
    by_order.load_state_dict(by_squares.state_dict())
    x, order = torch.randn(2, 64, 8, dtype=torch.float64), torch.from_numpy(places(8, 8, "z"))
    assert torch.allclose(by_squares(x)[0][:, order], by_order(x[:, order])[0], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "place", "remedy"),
    [
        ({"columns": 6, "ratio": 8}, "mixer hourglass.columns", "a ratio that is a square"),
        ({"columns": 6, "ratio": 16}, "mixer hourglass.columns", "whose side divides columns"),
        (
            {"columns": 6, "branches": [BLIND, {"mixer": "neighborhood_attention", "options": {"columns": 6}}]},
            "mixer hourglass.branches[1].columns",
            "Write columns=3",
        ),
    ],
)
def test_grids_that_do_not_fit_are_refused(options: dict[str, Any], place: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=remedy) as error:
        Hourglass.build(8, **options)
    assert error.value.place == place

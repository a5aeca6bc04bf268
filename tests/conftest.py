"""Fixtures that several rooms share. Tests may import the modules that stand in this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ["results", "run_log"]

if TYPE_CHECKING:
    from chimeralab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with a real embedded Ray cluster, one for the whole session: starting one takes 10 s and more."""
    from chimeralab import Lab
    from fresh_store import fresh_store_url

    home = tmp_path_factory.mktemp("lab")
    with Lab.open(home, store=fresh_store_url(home), cluster="embedded", cpus=4) as opened:
        yield opened


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes on one thread: tiny models wait for others longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

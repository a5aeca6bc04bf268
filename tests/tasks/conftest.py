"""A corpus that several tests of the text task read."""

from __future__ import annotations

from pathlib import Path

import pytest
from texts import poem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "poems"
    for number in range(60):
        path = root / f"part{number % 3}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(poem(number))
    return root

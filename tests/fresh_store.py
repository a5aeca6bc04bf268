"""An empty database for a test."""

from __future__ import annotations

import os
from pathlib import Path


def fresh_store_url(folder: Path) -> str:
    """An empty database of the kind that CHIMERALAB_TEST_STORE names: sqlite (default) or postgresql."""
    if os.environ.get("CHIMERALAB_TEST_STORE", "sqlite") == "postgresql":
        from postgres import new_database_url

        return new_database_url()
    return f"sqlite:///{folder / 'lab.db'}"

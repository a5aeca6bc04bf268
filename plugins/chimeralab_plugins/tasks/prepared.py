"""Prepared data in the cache: each folder is made once and atomically, by whichever process is first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` make the contents of `folder` unless they are there; whoever is first among processes wins.

    The contents are made beside it and renamed into place, so the folder is never seen half made.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(draft)
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)

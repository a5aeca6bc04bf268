"""The command line, called in this process where one call suffices, and a small corpus for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from called import Call, Finished

from chimeralab.cli import output


@pytest.fixture(autouse=True)
def settings_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "STORE", "CLUSTER", "STORE_PASSWORD_FILE", "PLUGINS_ALLOW", "PLUGINS_DENY", "STRICT"):
        monkeypatch.delenv(f"CHIMERALAB_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "120")  # of processes that a test starts
    for console in (output.out, output.err):  # which may have been made before
        monkeypatch.setattr(console, "width", 120)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def call(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the command's entry point with these arguments, at home in `home`."""
    from chimeralab.cli import main

    def call_here(*arguments: str) -> Finished:
        monkeypatch.setenv("CHIMERALAB_HOME", str(home))
        monkeypatch.setattr("sys.argv", ["chimeralab", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Finished(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call_here


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"page {number} of a book of twenty pages about nothing much\n" * 40)
    return folder

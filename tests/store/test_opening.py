"""Opening a database: fresh, shared, foreign, newer, or not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from samples import new_run
from sqlalchemy import text

from chimeralab.errors import StoreError
from chimeralab.store import Store, StoreUnavailable
from chimeralab.store.migrate import HEAD, MIGRATIONS, SCHEMA_TABLE
from chimeralab.store.models import Base


def test_eight_processes_open_one_fresh_database_at_once(url: str) -> None:
    program = (
        "import sys; from chimeralab.store import NewRun, Store; sys.stdin.readline();"
        "store = Store.open(sys.argv[1]);"
        "print(store.create_run(NewRun(sys.argv[2], 'p', {}, '', '', 't', 1)))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, f"run {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for process in processes:  # all have imported by the time the last one reads its line
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]

    assert [errors for _, errors in results if errors] == []
    assert sorted(int(output) for output, _ in results) == list(range(1, 9))
    assert Store.open(url, migrate=False).projects() == ["p"]


def test_migrations_lead_to_the_tables_of_the_models(store: Store) -> None:
    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": SCHEMA_TABLE})
        assert compare_metadata(context, Base.metadata) == []


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_reopened_database_has_its_rows(url: str) -> None:
    first = Store.open(url)
    run_id = first.create_run(new_run())
    first.close()
    assert Store.open(url).run(run_id).name == "baseline"


def test_fresh_database_is_left_alone_when_migration_is_not_wanted(url: str) -> None:
    with pytest.raises(StoreError, match=r"the schema is missing, this version needs \d+"):
        Store.open(url, migrate=False)


def test_database_of_a_newer_version_is_not_touched(store: Store) -> None:
    with store._database.writing() as connection:
        connection.execute(text(f"UPDATE {SCHEMA_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"newer version \(schema 9999, here \d+\)\. Upgrade chimeralab"):
        Store.open(store.url)


def test_other_tools_may_keep_their_schema_in_the_same_database(url: str) -> None:
    store = Store.open(url)
    with store._database.writing() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('mlflow')"))
    Store.open(url).create_run(new_run())


def test_unreachable_server_is_an_error_without_the_password() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        Store.open("postgresql://someone:s3cret@127.0.0.1:1/lab?password=s3cret&sslmode=disable")
    assert "s3cret" not in str(caught.value)
    assert caught.value.place == "postgresql://someone:***@127.0.0.1:1/lab?sslmode=disable"
    assert caught.value.remedy == "Check that the server runs and that the host and port are right"


def test_missing_database_is_an_error_that_says_so(url: str) -> None:
    if url.startswith("sqlite"):
        missing = "sqlite:////proc/nowhere/lab.db"
        message = "cannot create the folder /proc/nowhere"
    else:
        missing = re.sub(r"lab_\d+", "nowhere", url)
        message = 'database "nowhere" does not exist'
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(missing)
    assert caught.value.remedy


def test_file_that_is_not_a_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    with pytest.raises(StoreError, match="The file holds something else"):
        Store.open(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


def test_read_only_database_is_an_error_that_says_so(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open(url)
    store.close()
    if url.startswith("sqlite"):
        read_only = url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    else:
        read_only = url + "&options=-c%20default_transaction_read_only%3Don"
    with pytest.raises(StoreError, match=r"read-?only"):
        Store.open(read_only)
    assert not (tmp_path / "file:").exists()  # no folder named after the URI


@pytest.mark.parametrize("wrong", ["mysql://host/lab", "not a url", "sqlite://", "sqlite:///:memory:"])
def test_url_that_cannot_hold_a_lab_is_refused(wrong: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.open(wrong)
    assert "sqlite:////absolute/path/lab.db" in caught.value.remedy


def test_importing_the_store_loads_nothing_heavy() -> None:
    program = "import sys, chimeralab.store; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert "sqlalchemy" in loaded
    assert {"torch", "ray", "alembic", "pydantic", "numpy"} & set(loaded) == set()

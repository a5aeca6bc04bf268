"""Bring a database to the schema of this version, once, however many processes open it together."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from chimeralab.errors import StoreError
from chimeralab.store.database import Database

SCHEMA_TABLE = "chimeralab_schema"  # our own: another tool's alembic_version may live in the same database
HEAD = "0002"  # the newest of migrations/versions; written here so that opening needs no Alembic
MIGRATIONS = Path(__file__).parent / "migrations"

_ADVISORY_LOCK = 0x6368696D657261  # "chimera"
_WAL_PATIENCE = 30.0  # seconds
_alembic = threading.Lock()  # Alembic keeps its context in module globals


def upgrade_schema(database: Database) -> None:
    """Upgrade to `HEAD` under a lock. Raises StoreError for a database that is newer or cannot be written."""
    with database.writing() as connection:
        if _check_version(connection, database.place) == HEAD:
            # A read-only database should say so now, not when the first run is over.
            connection.execute(text(f"UPDATE {SCHEMA_TABLE} SET version_num = version_num"))
            return
    with database.reading() as connection:
        _use_wal(connection, database.place)
    # On SQLite the others wait already: a writing transaction has the write lock from its beginning.
    with _alembic, database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if _check_version(connection, database.place) != HEAD:
            _upgrade(connection)


def check_schema(database: Database) -> None:
    """Raise StoreError unless the database has the schema of this version."""
    with database.reading() as connection:
        version = _check_version(connection, database.place)
    if version != HEAD:
        reason = f"the schema is {version or 'missing'}, this version needs {HEAD}"
        raise StoreError(reason, place=database.place, remedy="Open it once with migrate=True")


def _check_version(connection: Connection, place: str) -> str | None:
    if not inspect(connection).has_table(SCHEMA_TABLE):
        return None
    version = connection.scalar(text(f"SELECT version_num FROM {SCHEMA_TABLE}"))
    if version is not None and version > HEAD:
        reason = f"the database was written by a newer version (schema {version}, here {HEAD})"
        raise StoreError(reason, place=place, remedy="Upgrade chimeralab")
    return version


def _use_wal(connection: Connection, place: str) -> None:
    """Write-ahead log: readers do not wait for the writer. The file remembers it."""
    if connection.dialect.name != "sqlite":
        return
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.execute("COMMIT")  # the mode cannot change within a transaction
    deadline = time.monotonic() + _WAL_PATIENCE
    while True:
        # SQLite does not wait for other connections here, whatever the busy timeout.
        try:
            raw.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                remedy = "Close the programs that use the file"
                raise StoreError(str(error), place=place, remedy=remedy) from error
            time.sleep(0.01)
        else:
            return


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")

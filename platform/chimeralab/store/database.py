"""One database: its address, its connections, its transactions, and its failures in words."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from chimeralab.errors import StoreError
from chimeralab.store.models import Base

_BUSY_MS = 15_000  # how long a writer waits for another one on SQLite
_PAUSES = (0.1, 0.5)  # seconds before the second and the third try of a repeatable operation

P = ParamSpec("P")
T = TypeVar("T")


class StoreUnavailable(StoreError):
    """The database is away or busy: the same call may succeed later. Whether it took effect is unknown."""


def repeatable(operation: Callable[P, T]) -> Callable[P, T]:
    """Try again, twice and shortly, while the database is unavailable.

    Only for operations that do nothing the second time: a connection may break after the commit was sent.
    """

    @functools.wraps(operation)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in _PAUSES:
            try:
                return operation(*args, **kwargs)
            except StoreUnavailable:
                time.sleep(pause)
        return operation(*args, **kwargs)

    return tried


class Database:
    """Connections to the database at `url`; safe to share between threads, not across a fork."""

    def __init__(self, url: str) -> None:
        self.url = url
        address = _address(url)
        self.place = _shown(address)
        if address.get_backend_name() == "sqlite":
            self._engine = create_engine(address, connect_args={"timeout": _BUSY_MS / 1000})
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            patience = {"connect_timeout": 5, "tcp_user_timeout": 30_000, "application_name": "chimeralab"}
            given = {key: value for key, value in patience.items() if key not in address.query}
            self._engine = create_engine(address, connect_args=given, pool_pre_ping=True)
        self._writer = self._engine.execution_options(chimeralab_writes=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads; on SQLite it sees one snapshot and waits for no writer."""
        with self._said(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes, committed at the end of the block, rolled back on any error."""
        with self._said(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
            reason = " ".join(str(cause).split()) or type(cause).__name__
            kind = StoreUnavailable if _transient(error) else StoreError
            raise kind(reason, place=self.place, remedy=_remedy(reason)) from error


def upsert(connection: Connection, table: type[Base], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert the rows, over those that have the same primary key. Keys must differ within `rows`."""
    batch = list(rows)
    if not batch:
        return
    keys = [column.name for column in table.__table__.primary_key]
    statement = _insert(connection, table)
    replaced = {name: statement.excluded[name] for name in batch[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), batch)


def insert_missing(connection: Connection, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose key or unique column is not there yet."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), list(rows))


def _insert(connection: Connection, table: type[Base]) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def with_password(url: str, file: Path) -> str:
    """The URL with the password that stands in a file, so that it stands in no command line.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        password = file.read_text().strip()
    except OSError as error:
        raise StoreError(f"the password's file cannot be read: {error.strerror}", place=str(file)) from None
    return _address(url).set(password=password).render_as_string(hide_password=False)


def _address(url: str) -> URL:
    remedy = "Write sqlite:////absolute/path/lab.db or postgresql://user@host/database"
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError("this is not a database URL", place="store", remedy=remedy) from error
    if address.drivername in {"postgresql", "postgres"}:
        return address.set(drivername="postgresql+psycopg")
    if address.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise StoreError(f"{address.drivername} is not supported", place=_shown(address), remedy=remedy)
    if address.drivername == "sqlite":
        if address.database in {None, "", ":memory:"}:
            raise StoreError("a database in memory is lost with its connection", place=url, remedy=remedy)
        folder = Path(str(address.database).removeprefix("file:")).absolute().parent  # it may be a URI
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot create the folder {folder}: {error.strerror}"
            raise StoreError(reason, place=_shown(address), remedy="Choose a writable place") from error
    return address


def _shown(address: URL) -> str:
    """The URL without its secrets, wherever they stand in it."""
    bare = address.difference_update_query(["password", "sslpassword"])
    return bare.set(drivername=address.get_backend_name()).render_as_string(hide_password=True)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we write BEGIN ourselves, below
    connection.execute("PRAGMA foreign_keys = ON")
    # A commit in WAL mode has reached the operating system before it returns, so it survives SIGKILL of
    # any process. NORMAL leaves out the fsync: a power cut may take some commits, the newest first,
    # statuses and checkpoints among them, so runs resume from what is left and measure the rest again.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another writer came between (its snapshot
    # is stale). One that takes the write lock at its start waits for its turn instead.
    writes = connection.get_execution_options().get("chimeralab_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _transient(error: SQLAlchemyError) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return "locked" in str(error.orig)
    state = getattr(error.orig, "sqlstate", None)  # None: no server answered
    # Connection lost, deadlock, server shutting down or starting, no connection left.
    return state is None or state[:2] in {"08", "40", "57"} or state == "53300"


def _remedy(reason: str) -> str:
    for sign, remedy in (
        ("locked", "Another program holds the database; close it, or use PostgreSQL for many writers"),
        ("readonly", "Make the file and its folder writable"),
        ("read-only", "Use the URL of the primary server, and a user who may write"),
        ("unable to open", "Check that the folder exists and is writable"),
        ("not a database", "The file holds something else; choose another path"),
        ("is full", "Free some disk space"),
        ("password", "Check the user and the password"),
        ("does not exist", "Create the database and the user, or correct the URL"),
        ("connect", "Check that the server runs and that the host and port are right"),
    ):
        if sign in reason:
            return remedy
    return ""

"""The database behind the preferences: SQLite in one file, or PostgreSQL by URL.

SQLite runs with a write-ahead log and `synchronous=FULL`: what was committed, and therefore acknowledged, survives a
killed process and a power failure. Writers take their lock at the start of a transaction (`BEGIN IMMEDIATE`) and,
within one process, one after the other, which is faster than letting them wait for each other inside SQLite. On
PostgreSQL rows are locked instead (`FOR UPDATE SKIP LOCKED` in the queue).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from plumbline.errors import NoStoreError, StoreConflict, StoreError, StoreUnavailable
from plumbline.preferences import audit

if TYPE_CHECKING:
    from plumbline.preferences.webhooks import Subscription

SCHEMA_VERSION = "0006"
"""The newest migration; written into every store."""

BUSY_SECONDS = 30
POOLED = 16
"""Connections that are kept open: a process answers 8 calls at once, some of which read beside what they write."""

CONFLICTS = ("40P01", "40001")
"""PostgreSQL's codes for transactions that wait for each other, or cannot have run one after the other."""

NOT_REACHED = ("connection", "the database system is")
"""PostgreSQL is down, or starting up, shutting down, in recovery."""

UNAVAILABLE = (
    (
        ("disk is full", "no space left", "could not extend file"),
        "the disk is full",
        ". The last change was not saved, all earlier ones are: free some space, then repeat it.",
    ),
    (
        ("disk i/o error", "could not write"),
        "the disk refuses to be written or read",
        ". The last change was not saved, all earlier ones are: look after the disk and the rights of the file, then "
        "repeat it.",
    ),
    (
        ("readonly database", "read-only"),
        "the store cannot be written",
        "; check the rights of the file and its folder.",
    ),
    (
        ("unable to open database file",),
        "the store cannot be opened",
        "; check that its folder exists and can be written.",
    ),
    (
        ("database is locked", "lock timeout"),
        f"another program has held the store for over {BUSY_SECONDS} s",
        "; end it, then try again.",
    ),
)
"""Words of a database's failure, what they mean, and what to do; each of them is over when its cause is."""

MIGRATION_LOCK = 0x706C756D  # any constant; PostgreSQL takes it while the tables are made


class Store:
    """An open preference store. Share one per process; its methods may be called from any thread."""

    def __init__(self, engine: Engine, place: str) -> None:
        self.engine = engine
        self.place = place
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._writer: AbstractContextManager[Any] = threading.RLock() if self.is_sqlite else nullcontext()
        self._current = threading.local()
        self.subscriptions: Sequence[Subscription] = ()
        """Who is told of answers by webhook; set by whoever opens the store for a recipe."""

    @classmethod
    def open(cls, url_or_path: str | Path, *, create: bool = True) -> Store:
        """Open a store, making or migrating its tables where needed.

        Args:
            url_or_path: a file for SQLite, or a database URL such as `postgresql://user@host/name`.
            create: make the file and its tables when they are not there.

        Raises:
            NoStoreError: there is none, and `create` is false.
            StoreError: it cannot be reached, is not a preference store, or was written by a newer version.
        """
        url, place = _address(url_or_path, create=create)
        store = cls(_engine(url, place), place)
        try:
            store._prepare(create=create)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write, committed at the end and undone on any exception.

        Inside another `write()` of the same thread it joins that transaction, which then commits all together.
        """
        joined = getattr(self._current, "connection", None)
        if joined is not None:
            yield joined
            return
        with self._writer, self._told(), self._connect(writes=True) as connection, connection.begin():
            self._current.connection, self._current.found = connection, {}
            try:
                with audit.recording(connection, self.subscriptions):
                    yield connection
            finally:
                self._current.connection = None

    @property
    def found(self) -> dict[str, int]:
        """Row ids of projects, by name, that the transaction of this thread has found; a new one begins without any."""
        found: dict[str, int] = self._current.found
        return found

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: one consistent state, however long it takes; writers go on meanwhile."""
        joined = getattr(self._current, "connection", None)
        if joined is not None:
            yield joined
            return
        with self._told(), self._connect(writes=False) as connection, connection.begin():
            yield connection

    def _connect(self, *, writes: bool) -> Connection:
        options: dict[str, Any] = {"plumbline_writes": writes}
        if not writes and not self.is_sqlite:
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return self.engine.connect().execution_options(**options)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            fault = _fault(error, self.place)
            if fault is None:
                raise
            raise fault from error

    def _prepare(self, *, create: bool) -> None:
        with self.read() as connection:
            version = _version(connection, self.place)
        if version == SCHEMA_VERSION:
            return
        if version is None and not create:
            raise NoStoreError(self.place)
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            version = _version(connection, self.place)
            if version == SCHEMA_VERSION:  # another process was faster
                return
            _migrate(connection, version, self.place)


def check_store(url_or_path: str | Path) -> bool:
    """Make sure, before any work, that a store can be opened, or made where there is none; it is not made here.

    Returns:
        Whether there is one.

    Raises:
        StoreError: as for `Store.open`; or the folder that it would lie in cannot be written.
    """
    try:
        Store.open(url_or_path, create=False).close()
    except NoStoreError as none:
        if "://" not in none.place:
            folder = next(parent for parent in Path(none.place).absolute().parents if parent.exists())
            if not (folder.is_dir() and os.access(folder, os.W_OK)):
                raise StoreError(f"{none.place}: the store cannot be made: {folder} cannot be written.") from None
        return False
    return True


def insert_new(connection: Connection, table: type[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; where a unique column has the value already, the row that is there stays as it is."""
    if rows:
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


def _address(url_or_path: str | Path, *, create: bool) -> tuple[URL, str]:
    if isinstance(url_or_path, str) and "://" in url_or_path:
        try:
            url = make_url(url_or_path)
        except ArgumentError:
            raise StoreError(f"{url_or_path!r} is no database URL, such as postgresql://user@host/name.") from None
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(
                f"a store is SQLite or PostgreSQL, not {url.get_backend_name()}: give a file, or postgresql://…"
            )
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "postgresql":
            return url, url.render_as_string(hide_password=True)
        url_or_path = url.database or ""
    path = Path(url_or_path)
    if not path.name:
        raise StoreError("the store needs a file: preferences in memory would be lost.")
    if not path.exists():
        if not create:
            raise NoStoreError(str(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent}: the store's folder cannot be made ({error.strerror}).") from None
        with suppress(OSError):  # then SQLite says why
            path.touch(mode=0o600)  # hashes of passwords, and what people said, are nobody else's
    return URL.create("sqlite", database=str(path)), str(path)


def _engine(url: URL, place: str) -> Engine:
    if url.get_backend_name() == "sqlite":
        options = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(url, connect_args=options, pool_size=POOLED, json_deserializer=from_json)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(url, pool_pre_ping=True, pool_size=POOLED, json_deserializer=from_json)
    except (NoSuchModuleError, ModuleNotFoundError):
        raise StoreError(f"{place}: PostgreSQL needs a driver: pip install 'plumbline[postgres]'.") from None


def from_json(stored: str) -> Any:
    """A stored value; where orjson is strict (lone surrogates, numbers without end), as Python reads it."""
    try:
        return orjson.loads(stored)
    except orjson.JSONDecodeError:
        return json.loads(stored)


def _configure_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("plumbline_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _version(connection: Connection, place: str) -> str | None:
    """The store's schema version; None for an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables and "answers" in tables:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    if tables and connection.dialect.name == "sqlite":
        raise StoreError(f"{place} is a database of another program, not a preference store: name another file.")
    return None


def _migrate(connection: Connection, version: str | None, place: str) -> None:
    # Alembic is slow to import, and nearly every time there is nothing to migrate.
    from plumbline.preferences.migrations.programmatic import known_versions, upgrade

    if version is not None and version not in known_versions():
        raise StoreError(
            f"{place} was written by a newer plumbline (store version {version}; this plumbline knows up to "
            f"{SCHEMA_VERSION}): update plumbline, nothing was changed."
        )
    upgrade(connection, SCHEMA_VERSION)


def _fault(error: DBAPIError, place: str) -> StoreError | None:
    """What a failure of the database means for the user; None where it is a fault of plumbline."""
    reason = str(error.orig)
    lowered = reason.lower()
    if getattr(error.orig, "sqlstate", None) in CONFLICTS:
        return StoreConflict(
            "two changes got in each other's way, and this one was not saved: repeat it.", "too much happens at once"
        )
    if "is not a database" in lowered or "malformed" in lowered:
        return StoreError(f"{place} is not a readable SQLite database: name another file, or restore it from a backup.")
    if error.connection_invalidated or any(words in lowered for words in NOT_REACHED):
        why = "the database cannot be reached"
        return StoreUnavailable(f"{place}: {why} ({reason.strip().splitlines()[0]}).", why)
    for words, why, to_do in UNAVAILABLE:
        if any(word in lowered for word in words):
            return StoreUnavailable(f"{place}: {why}{to_do}", why)
    return None

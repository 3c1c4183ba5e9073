"""A SQLite catalog for many threads and processes: one writer at a time, readers never wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from adapters_store.catalog.schema import has_current_schema, migrate
from adapters_store.errors import CorruptStoreError, UnavailableError

BUSY_TIMEOUT_S = 30.0
_POOL_SIZE = 16


class Database:
    """Connections to one catalog file; creates and migrates it when opened."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
            pool_size=_POOL_SIZE,
            max_overflow=48,
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        with self.read() as connection:
            is_current = has_current_schema(connection)
        if not is_current:
            with self.write() as connection:
                migrate(connection)

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot; raises UnavailableError or CorruptStoreError."""
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction with the write lock from its start; commits at the end or rolls back."""
        with self._errors(), self._engine.connect() as connection:
            writer = connection.execution_options(patchbay_write=True)
            with writer.begin():
                yield writer

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise UnavailableError(
                f"the catalog {self.path} cannot be used: {error.orig}"
            ) from error
        except DatabaseError as error:
            if type(error) is not DatabaseError:
                raise
            raise CorruptStoreError(f"the catalog {self.path} is damaged: {error.orig}") from error


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    _use_write_ahead_log(cursor)
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch to WAL; the first switch ignores busy_timeout, so wait for other openers here."""
    import sqlite3

    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("patchbay_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

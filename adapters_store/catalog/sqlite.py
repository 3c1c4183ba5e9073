"""A SQLite catalog: one file in WAL mode, readers never wait, writers wait for each other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from adapters_store.catalog.database import IS_WRITE, LOCK_TIMEOUT_S, Database
from adapters_store.errors import (
    CorruptStoreError,
    NotFoundError,
    PatchbayError,
    UnavailableError,
)

_POOL_SIZE = 16
_PERMISSION_HINT = "Give this user write permission on the file and its folder; reading needs it."
_BACKUP_HINT = "Put a backup of the file in its place; the blobs are not concerned."
_RETRY_HINT = "Retry in a moment, and check that the disk has space left."


class SqliteDatabase(Database):
    """The catalog in one file, whose folder exists."""

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        if not create and not Path(path).is_file():
            raise NotFoundError(
                f"no catalog at {path}",
                hint="Check the location; pushing an artefact creates a store.",
            )
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False},
            pool_size=_POOL_SIZE,
            max_overflow=48,
            hide_parameters=True,
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        writer = engine.execution_options(**{IS_WRITE: True})
        super().__init__(str(path), reader=engine, writer=writer)
        self.prepare(create=create)

    def as_typed(self, error: DBAPIError) -> PatchbayError | None:
        """Busy, full or unreadable is unavailable; what is no database is damaged."""
        if isinstance(error, OperationalError):
            name = getattr(error.orig, "sqlite_errorname", "")
            is_refused = name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN"))
            return UnavailableError(
                f"the catalog {self.location} cannot be used: {error.orig}",
                hint=_PERMISSION_HINT if is_refused else _RETRY_HINT,
            )
        if type(error) is DatabaseError:
            return CorruptStoreError(
                f"the catalog {self.location} is damaged: {error.orig}", hint=_BACKUP_HINT
            )
        return None


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT_S * 1000)}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    _use_write_ahead_log(cursor)
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch to WAL; the first switch ignores busy_timeout, so wait for other openers here."""
    import sqlite3

    give_up_at = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    is_write = connection.get_execution_options().get(IS_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

"""Counters: whole numbers that the catalog keeps by name."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from adapters_store.catalog.schema import COUNTERS

COLLECTIONS = "collections"
"""Odd while a collection may be removing blobs; it grows at the start and the end of each."""
RESTORE_WINDOW_S = "restore_window_s"


def read(connection: Connection, name: str, default: int = 0) -> int:
    """A counter's value."""
    value = connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == name)).scalar()
    return default if value is None else int(value)


def write(connection: Connection, name: str, value: int) -> None:
    """Set a counter."""
    changed = connection.execute(
        update(COUNTERS).where(COUNTERS.c.name == name).values(value=value)
    )
    if changed.rowcount == 0:
        connection.execute(insert(COUNTERS).values(name=name, value=value))

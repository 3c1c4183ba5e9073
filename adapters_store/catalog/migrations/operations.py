"""The verbs of migrations, alike on every catalog."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Index, Table
from sqlalchemy.schema import CreateColumn


def create_tables(connection: Connection, *tables: Table) -> None:
    """Create tables with their indexes, in this order.

    A foreign key needs its target in the same ``MetaData``: repeat an older table there as a stub
    of its key columns and leave it out here.
    """
    for table in tables:
        table.create(connection)


def add_columns(connection: Connection, table: Table, *columns: Column[Any]) -> None:
    """Add columns that may be null, or that have a constant ``server_default``.

    ``columns`` belong to ``table``, the migration's own copy.
    """
    quote = connection.dialect.identifier_preparer.format_table
    for column in columns:
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {quote(table)} ADD COLUMN {definition}")


def create_indexes(connection: Connection, *indexes: Index) -> None:
    """Create indexes on tables that exist."""
    for index in indexes:
        index.create(connection)

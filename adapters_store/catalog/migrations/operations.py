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


def make_append_only(connection: Connection, table: Table) -> None:
    """Have the database itself refuse to change or remove rows of a table."""
    refusal = f"rows of {table.name} are never changed or removed"
    if connection.dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
                f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            )
        return
    connection.exec_driver_sql(
        f"CREATE FUNCTION {table.name}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{refusal}' USING ERRCODE = 'restrict_violation'; END $$"
    )
    connection.exec_driver_sql(
        f"CREATE TRIGGER {table.name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        f"ON {table.name} FOR EACH STATEMENT EXECUTE FUNCTION {table.name}_refuse()"
    )

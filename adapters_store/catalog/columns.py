"""Column types and indexes that mean the same on every catalog."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, String, Table, Text, event

# SQLite's INTEGER has 64 bits under this name alone, and only this name makes a row id.
INTEGER = BigInteger().with_variant(Integer(), "sqlite")
# Bytewise order, so that pages are alike everywhere and no locale update can break an index.
STRING = String().with_variant(String(collation="C"), "postgresql")
TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def partial_index(name: str, table: Table, columns: str, *, where: str) -> None:
    """Index those rows of a table that meet ``where``, whenever the table is created.

    In plain SQL: SQLAlchemy's own form imports every dialect that it names.
    """
    statement = f"CREATE INDEX {name} ON {table.name} ({columns}) WHERE {where}"

    def create(_table: Table, connection: Connection, **_options: Any) -> None:
        connection.exec_driver_sql(statement)

    event.listen(table, "after_create", create)

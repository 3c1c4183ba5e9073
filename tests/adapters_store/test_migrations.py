"""Catalogs of any release become this release's: same tables, one upgrade, no downgrade."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, inspect

from adapters_store.catalog import open_catalog
from adapters_store.catalog.migrations import MIGRATIONS, SCHEMA_VERSION
from adapters_store.catalog.schema import METADATA
from adapters_store.errors import NotFoundError, UnavailableError


def described(connection: Connection) -> dict[str, object]:
    """Every table with its columns, keys and indexes, as the database itself tells them."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign keys": sorted(
                (key["constrained_columns"], key["referred_table"], key["referred_columns"])
                for key in inspector.get_foreign_keys(table)
            ),
            "unique": sorted(
                key["column_names"] for key in inspector.get_unique_constraints(table)
            ),
            "indexes": sorted(
                (index["name"], index["column_names"], index["unique"])
                for index in inspector.get_indexes(table)
            ),
        }
        for table in inspector.get_table_names()
        if table != SCHEMA_VERSION.name
    }


def test_the_migrations_give_exactly_the_tables_that_queries_see(tmp_path):
    with open_catalog(tmp_path / "migrated.sqlite").read() as connection:
        migrated = described(connection)
    with open_catalog(tmp_path / "other.sqlite").write() as connection:
        for table in inspect(connection).get_table_names():
            if table != SCHEMA_VERSION.name:
                connection.exec_driver_sql(f"DROP TABLE {table}")
        METADATA.create_all(connection)
        assert described(connection) == migrated


def test_migrations_are_numbered_without_gaps():
    assert [name[:5] for name in MIGRATIONS] == [f"{n:04d}_" for n in range(1, len(MIGRATIONS) + 1)]


def test_a_catalog_of_a_newer_release_is_refused(tmp_path):
    newer = len(MIGRATIONS) + 1
    with open_catalog(tmp_path / "catalog.sqlite").write() as connection:
        connection.execute(SCHEMA_VERSION.insert().values(version=newer))
    with pytest.raises(UnavailableError, match=f"version {newer}; this release knows") as caught:
        open_catalog(tmp_path / "catalog.sqlite")
    assert "Patchbay" in caught.value.hint


def test_an_absent_catalog_is_made_only_where_that_is_wanted(tmp_path):
    with pytest.raises(NotFoundError, match="no catalog at"):
        open_catalog(tmp_path / "catalog.sqlite", create=False)
    open_catalog(tmp_path / "catalog.sqlite").close()
    open_catalog(f"file://{tmp_path}/catalog.sqlite", create=False).close()

"""Catalogs of any release become this release's: same tables, one upgrade, no downgrade."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, insert, inspect, select

from adapters_store.catalog import migrations, open_catalog
from adapters_store.catalog.migrations import MIGRATIONS, SCHEMA_VERSION
from adapters_store.catalog.migrations import v0001_initial as old
from adapters_store.catalog.schema import METADATA, NAMES
from adapters_store.errors import NotFoundError, UnavailableError

NAMED_STATES = {
    "live": [("adapter", False), ("routing", False)],
    "fell-back": [("adapter", False), ("routing", True)],
    "gone": [("adapter", True)],
}
OPENER = """
import sys
from adapters_store.catalog import open_catalog
from adapters_store.catalog.migrations import SCHEMA_VERSION

sys.stdin.readline()
with open_catalog(sys.argv[1]).read() as connection:
    print(list(connection.execute(SCHEMA_VERSION.select()).scalars()))
"""


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
                (index["name"], index["column_names"], index["unique"], options_of(index))
                for index in inspector.get_indexes(table)
            ),
        }
        for table in inspector.get_table_names()
        if table != SCHEMA_VERSION.name
    }


def options_of(index: dict[str, Any]) -> list[str]:
    """What is special about an index, such as the condition of a partial one."""
    return sorted(f"{name}: {value}" for name, value in index.get("dialect_options", {}).items())


def test_the_migrations_give_exactly_the_tables_that_queries_see(catalog_url):
    catalog = open_catalog(catalog_url)
    with catalog.read() as connection:
        migrated = described(connection)
    with catalog.write() as connection:
        made = MetaData()
        made.reflect(connection)
        made.remove(made.tables[SCHEMA_VERSION.name])
        made.drop_all(connection)
        METADATA.create_all(connection)
        assert described(connection) == migrated
    catalog.close()


def test_migrations_are_numbered_without_gaps():
    assert [name[:5] for name in MIGRATIONS] == [f"{n:04d}_" for n in range(1, len(MIGRATIONS) + 1)]


def test_a_catalog_of_a_newer_release_is_refused(catalog_url):
    newer = len(MIGRATIONS) + 1
    catalog = open_catalog(catalog_url)
    with catalog.write() as connection:
        connection.execute(SCHEMA_VERSION.insert().values(version=newer))
    catalog.close()
    with pytest.raises(UnavailableError, match=f"version {newer}; this release knows") as caught:
        open_catalog(catalog_url)
    assert "Patchbay" in caught.value.hint


def test_an_absent_catalog_is_made_only_where_that_is_wanted(tmp_path):
    with pytest.raises(NotFoundError, match="no catalog at"):
        open_catalog(tmp_path / "catalog.sqlite", create=False)
    open_catalog(tmp_path / "catalog.sqlite").close()
    open_catalog(f"file://{tmp_path}/catalog.sqlite", create=False).close()


def test_processes_that_open_a_new_catalog_at_once_make_one(catalog_url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, catalog_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert answers == [f"{list(range(1, len(MIGRATIONS) + 1))}\n"] * 4


def test_an_older_catalog_learns_each_names_newest_live_version(catalog_url, monkeypatch):
    with monkeypatch.context() as older:
        for name in list(MIGRATIONS)[2:]:
            older.delitem(migrations.MIGRATIONS, name)
        catalog = open_catalog(catalog_url)
    at = {"created_at": "2026-03-01T12:00:00.000+00:00"}
    with catalog.write() as connection:
        backbone = {"fingerprint": "f", "name": "tiny", "family": "t5", "config": "{}"}
        connection.execute(insert(old.BACKBONES).values(backbone | at))
        for kind in ("adapter", "routing"):
            sizes = {"data_bytes": 1, "manifest_bytes": 1}
            digests = dict.fromkeys(("digest", "data_digest", "content_digest"), kind)
            artefact = {"kind": kind, "backbone": "f", **sizes, **digests}
            connection.execute(insert(old.ARTEFACTS).values(artefact | at))
        for key, (name, states) in enumerate(NAMED_STATES.items(), start=1):
            row = {"id": key, "tenant": "acme", "name": name, "num_versions": len(states)}
            connection.execute(insert(old.NAMES).values(row | at))
            for number, (kind, is_deleted) in enumerate(states, start=1):
                version = {"name_id": key, "number": number, "digest": kind, "actor": "ann"}
                version["deleted_at"] = at["created_at"] if is_deleted else None
                connection.execute(insert(old.VERSIONS).values(version | at))
    catalog.close()
    catalog = open_catalog(catalog_url)
    with catalog.read() as connection:
        query = select(NAMES.c.name, NAMES.c.newest, NAMES.c.newest_kind).order_by(NAMES.c.id)
        found = [tuple(row) for row in connection.execute(query)]
    catalog.close()
    assert found == [("live", 2, "routing"), ("fell-back", 1, "adapter"), ("gone", None, None)]

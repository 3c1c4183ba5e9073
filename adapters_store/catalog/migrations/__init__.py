"""Numbered migrations: how a catalog of any earlier release becomes one of this release.

The schema version of a catalog is the number of rows of ``MIGRATIONS`` that were applied to it. To
change the tables:

1. write ``vNNNN_what.py`` with ``upgrade(connection)``, which holds its own copy of the tables it
   makes (``operations`` has the verbs), because it must do the same for ever;
2. add its row at the end of ``MIGRATIONS``;
3. change ``catalog/schema.py`` to what the tables are afterwards.

A test holds that the migrations give exactly what ``schema.py`` describes. A released migration is
never edited.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, Connection, Integer, MetaData, Table, func, insert, select

from adapters_store.errors import UnavailableError
from adapters_store.lazy import resolve

MIGRATIONS: dict[str, str] = {
    "0001_initial": "adapters_store.catalog.migrations.v0001_initial:upgrade",
    "0002_ledger": "adapters_store.catalog.migrations.v0002_ledger:upgrade",
    "0003_newest": "adapters_store.catalog.migrations.v0003_newest:upgrade",
    "0004_signatures": "adapters_store.catalog.migrations.v0004_signatures:upgrade",
}

SCHEMA_VERSION = Table("schema_version", MetaData(), Column("version", Integer, primary_key=True))


def is_catalog(connection: Connection) -> bool:
    """True where a catalog was made before, by any release."""
    return connection.dialect.has_table(connection, SCHEMA_VERSION.name)


def has_current_schema(connection: Connection) -> bool:
    """True where :func:`migrate` has nothing to do, in a database that is a catalog."""
    return _version(connection) == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring the catalog to this release's schema, inside the caller's write transaction.

    Raises UnavailableError where a newer release wrote it.
    """
    SCHEMA_VERSION.create(connection, checkfirst=True)
    current = _version(connection)
    if current > len(MIGRATIONS):
        raise UnavailableError(
            f"the catalog has schema version {current}; this release knows {len(MIGRATIONS)}",
            hint="Use a Patchbay at least as new as the one that wrote this store.",
        )
    for version, name in enumerate(MIGRATIONS, start=1):
        if version > current:
            upgrade: Callable[[Connection], None] = resolve(MIGRATIONS, name, "migration")
            upgrade(connection)
            connection.execute(insert(SCHEMA_VERSION).values(version=version))


def _version(connection: Connection) -> int:
    return connection.execute(select(func.max(SCHEMA_VERSION.c.version))).scalar() or 0

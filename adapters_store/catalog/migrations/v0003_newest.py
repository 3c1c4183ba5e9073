"""The newest live version and its kind beside each name, with the indexes that pages walk."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Index, MetaData, Table, select, update

from adapters_store.catalog.columns import INTEGER, STRING
from adapters_store.catalog.migrations.operations import add_columns, create_indexes

METADATA = MetaData()

NAMES = Table(
    "names",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("tenant", STRING),
    Column("name", STRING),
    Column("newest", INTEGER),
    Column("newest_kind", STRING),
)
VERSIONS = Table(
    "versions",
    METADATA,
    Column("name_id", INTEGER, primary_key=True),
    Column("number", INTEGER, primary_key=True),
    Column("digest", STRING),
    Column("deleted_at", STRING),
)
ARTEFACTS = Table(
    "artefacts",
    METADATA,
    Column("digest", STRING, primary_key=True),
    Column("kind", STRING),
)


def upgrade(connection: Connection) -> None:
    """Add and fill the columns, then index them."""
    add_columns(connection, NAMES, NAMES.c.newest, NAMES.c.newest_kind)
    newest = (
        select(VERSIONS.c.number)
        .where(VERSIONS.c.name_id == NAMES.c.id, VERSIONS.c.deleted_at.is_(None))
        .order_by(VERSIONS.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(update(NAMES).values(newest=newest))
    kind = (
        select(ARTEFACTS.c.kind)
        .join_from(ARTEFACTS, VERSIONS, VERSIONS.c.digest == ARTEFACTS.c.digest)
        .where(VERSIONS.c.name_id == NAMES.c.id, VERSIONS.c.number == NAMES.c.newest)
        .scalar_subquery()
    )
    connection.execute(update(NAMES).values(newest_kind=kind))
    by_kind = Index("names_by_kind", NAMES.c.newest_kind, NAMES.c.tenant, NAMES.c.name)
    create_indexes(connection, by_kind)
    connection.exec_driver_sql(
        "CREATE INDEX names_live ON names (tenant, name) WHERE newest IS NOT NULL"
    )

"""Names, versions and aliases: the tables of the first release."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
    insert,
)

from adapters_store.catalog.columns import INTEGER, STRING, TEXT
from adapters_store.catalog.migrations.operations import create_tables

METADATA = MetaData()

COUNTERS = Table(
    "counters",
    METADATA,
    Column("name", STRING, primary_key=True),
    Column("value", INTEGER, nullable=False),
)
BACKBONES = Table(
    "backbones",
    METADATA,
    Column("fingerprint", STRING, primary_key=True),
    Column("name", STRING, nullable=False, unique=True),
    Column("family", STRING, nullable=False),
    Column("config", TEXT, nullable=False),
    Column("created_at", STRING, nullable=False),
)
ARTEFACTS = Table(
    "artefacts",
    METADATA,
    Column("digest", STRING, primary_key=True),
    Column("kind", STRING, nullable=False),
    Column("backbone", STRING, ForeignKey("backbones.fingerprint"), nullable=False),
    Column("bank", STRING, ForeignKey("artefacts.digest"), index=True),
    Column("data_digest", STRING, nullable=False),
    Column("data_bytes", INTEGER, nullable=False),
    Column("manifest_bytes", INTEGER, nullable=False),
    Column("content_digest", STRING, nullable=False, index=True),
    Column("created_at", STRING, nullable=False),
)
NAMES = Table(
    "names",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("tenant", STRING, nullable=False),
    Column("name", STRING, nullable=False),
    Column("num_versions", INTEGER, nullable=False),
    Column("created_at", STRING, nullable=False),
    UniqueConstraint("tenant", "name"),
)
VERSIONS = Table(
    "versions",
    METADATA,
    Column("name_id", INTEGER, ForeignKey("names.id"), primary_key=True),
    Column("number", INTEGER, primary_key=True),
    Column("digest", STRING, ForeignKey("artefacts.digest"), nullable=False, index=True),
    Column("actor", STRING, nullable=False),
    Column("created_at", STRING, nullable=False),
    Column("deleted_at", STRING),
    Column("deleted_by", STRING),
    Column("delete_reason", STRING),
    Index("versions_by_digest", "name_id", "digest"),
)
ALIASES = Table(
    "aliases",
    METADATA,
    Column("name_id", INTEGER, ForeignKey("names.id"), primary_key=True),
    Column("alias", STRING, primary_key=True),
    Column("number", INTEGER, nullable=False),
    ForeignKeyConstraint(["name_id", "number"], ["versions.name_id", "versions.number"]),
    Index("aliases_by_version", "name_id", "number"),
)
ALIAS_EVENTS = Table(
    "alias_events",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("name_id", INTEGER, ForeignKey("names.id"), nullable=False, index=True),
    Column("alias", STRING, nullable=False),
    Column("from_number", INTEGER),
    Column("to_number", INTEGER),
    Column("actor", STRING, nullable=False),
    Column("reason", STRING, nullable=False),
    Column("at", STRING, nullable=False),
)


def upgrade(connection: Connection) -> None:
    """Create every table and the counter of changes."""
    create_tables(
        connection, COUNTERS, BACKBONES, ARTEFACTS, NAMES, VERSIONS, ALIASES, ALIAS_EVENTS
    )
    connection.execute(insert(COUNTERS).values(name="generation", value=0))

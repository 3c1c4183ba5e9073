"""Tables and their migrations. A migration is never edited once released; a new one is added."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
    update,
)

from adapters_store.errors import UnavailableError

METADATA = MetaData()

SCHEMA_VERSION = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))
COUNTERS = Table(
    "counters",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", Integer, nullable=False),
)
BACKBONES = Table(
    "backbones",
    METADATA,
    Column("fingerprint", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("family", String, nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", String, nullable=False),
)
ARTEFACTS = Table(
    "artefacts",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("backbone", String, ForeignKey("backbones.fingerprint"), nullable=False),
    Column("bank", String, ForeignKey("artefacts.digest"), index=True),
    Column("data_digest", String, nullable=False),
    Column("data_bytes", Integer, nullable=False),
    Column("manifest_bytes", Integer, nullable=False),
    Column("content_digest", String, nullable=False, index=True),
    Column("created_at", String, nullable=False),
)
NAMES = Table(
    "names",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("name", String, nullable=False),
    Column("num_versions", Integer, nullable=False),
    Column("created_at", String, nullable=False),
    UniqueConstraint("tenant", "name"),
)
VERSIONS = Table(
    "versions",
    METADATA,
    Column("name_id", Integer, ForeignKey("names.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String, ForeignKey("artefacts.digest"), nullable=False, index=True),
    Column("actor", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("deleted_at", String),
    Column("deleted_by", String),
    Column("delete_reason", String),
    Index("versions_by_digest", "name_id", "digest"),
)
ALIASES = Table(
    "aliases",
    METADATA,
    Column("name_id", Integer, ForeignKey("names.id"), primary_key=True),
    Column("alias", String, primary_key=True),
    Column("number", Integer, nullable=False),
    ForeignKeyConstraint(["name_id", "number"], ["versions.name_id", "versions.number"]),
    Index("aliases_by_version", "name_id", "number"),
)
ALIAS_EVENTS = Table(
    "alias_events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name_id", Integer, ForeignKey("names.id"), nullable=False, index=True),
    Column("alias", String, nullable=False),
    Column("from_number", Integer),
    Column("to_number", Integer),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", String, nullable=False),
)


def _create_tables(connection: Connection) -> None:
    METADATA.create_all(connection)
    connection.execute(insert(COUNTERS).values(name="generation", value=0))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_tables,)


def has_current_schema(connection: Connection) -> bool:
    """True where :func:`migrate` has nothing to do."""
    if not inspect(connection).has_table(SCHEMA_VERSION.name):
        return False
    current = connection.execute(select(func.max(SCHEMA_VERSION.c.version))).scalar()
    return current == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring the catalog to this release's schema, inside the caller's write transaction.

    Raises UnavailableError where a newer release wrote it.
    """
    SCHEMA_VERSION.create(connection, checkfirst=True)
    current = connection.execute(select(func.max(SCHEMA_VERSION.c.version))).scalar() or 0
    if current > len(MIGRATIONS):
        raise UnavailableError(
            f"the catalog has schema version {current}; this release knows {len(MIGRATIONS)}",
            hint="Use a Patchbay at least as new as the one that wrote this store.",
        )
    for version in range(current + 1, len(MIGRATIONS) + 1):
        MIGRATIONS[version - 1](connection)
        connection.execute(insert(SCHEMA_VERSION).values(version=version))


def bump_generation(connection: Connection) -> None:
    """Count one change of names, so that caches elsewhere notice it."""
    connection.execute(
        update(COUNTERS).where(COUNTERS.c.name == "generation").values(value=COUNTERS.c.value + 1)
    )


GENERATION = select(COUNTERS.c.value).where(COUNTERS.c.name == "generation")

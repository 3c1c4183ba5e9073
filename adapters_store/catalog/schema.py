"""The tables as queries see them; ``migrations`` makes them, so a change here needs one there."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
    select,
    update,
)

from adapters_store.catalog.columns import INTEGER, STRING, TEXT, partial_index

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
    Column("data_digest", STRING, nullable=False, index=True),
    Column("data_bytes", INTEGER, nullable=False),
    Column("manifest_bytes", INTEGER, nullable=False),
    Column("content_digest", STRING, nullable=False, index=True),
    Column("created_at", STRING, nullable=False),
    Column("collected_at", STRING),
)
PARENTS = Table(
    "parents",
    METADATA,
    Column("child", STRING, ForeignKey("artefacts.digest"), primary_key=True),
    Column("parent", STRING, primary_key=True, index=True),
)
NAMES = Table(
    "names",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("tenant", STRING, nullable=False),
    Column("name", STRING, nullable=False),
    Column("num_versions", INTEGER, nullable=False),
    Column("created_at", STRING, nullable=False),
    Column("newest", INTEGER),
    Column("newest_kind", STRING),
    UniqueConstraint("tenant", "name"),
    Index("names_by_kind", "newest_kind", "tenant", "name"),
)
partial_index("names_live", NAMES, "tenant, name", where="newest IS NOT NULL")
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
    Column("purged_at", STRING),
    Column("purged_by", STRING),
    Column("purge_reason", STRING),
    Index("versions_by_digest", "name_id", "digest"),
)
partial_index("versions_deleted", VERSIONS, "deleted_at", where="deleted_at IS NOT NULL")
ALIASES = Table(
    "aliases",
    METADATA,
    Column("name_id", INTEGER, ForeignKey("names.id"), primary_key=True),
    Column("alias", STRING, primary_key=True),
    Column("number", INTEGER, nullable=False),
    ForeignKeyConstraint(["name_id", "number"], ["versions.name_id", "versions.number"]),
    Index("aliases_by_version", "name_id", "number"),
)
EVENTS = Table(
    "events",
    METADATA,
    Column("sequence", INTEGER, primary_key=True, autoincrement=False),
    Column("at", STRING, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("type", STRING, nullable=False),
    Column("tenant", STRING),
    Column("name", STRING),
    Column("version", INTEGER),
    Column("alias", STRING),
    Column("digest", STRING),
    Column("payload", TEXT, nullable=False),
    Column("previous_hash", STRING, nullable=False),
    Column("hash", STRING, nullable=False),
    Index("events_by_name", "tenant", "name", "type", "sequence"),
    Index("events_by_tenant", "tenant", "sequence"),
)
EVENT_HEAD = Table(
    "event_head",
    METADATA,
    Column("id", INTEGER, primary_key=True, autoincrement=False),
    Column("sequence", INTEGER, nullable=False),
    Column("hash", STRING, nullable=False),
    Column("at", STRING, nullable=False),
)
TAGS = Table(
    "tags",
    METADATA,
    Column("name_id", INTEGER, ForeignKey("names.id"), primary_key=True),
    Column("number", INTEGER, primary_key=True),
    Column("key", STRING, primary_key=True),
    Column("value", STRING, nullable=False),
    Column("tenant", STRING, nullable=False),
    Column("name", STRING, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("at", STRING, nullable=False),
    Index("tags_by_key", "key", "tenant", "name", "number"),
    Index("tags_by_value", "key", "value", "tenant", "name", "number"),
)
EVALUATIONS = Table(
    "evaluations",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("name_id", INTEGER, nullable=False),
    Column("number", INTEGER, nullable=False),
    Column("metric", STRING, nullable=False),
    Column("value", Double, nullable=False),
    Column("split", STRING, nullable=False),
    Column("data_digest", STRING),
    Column("num_examples", INTEGER),
    Column("seed", INTEGER),
    Column("notes", TEXT, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("at", STRING, nullable=False),
    ForeignKeyConstraint(["name_id", "number"], ["versions.name_id", "versions.number"]),
    Index("evaluations_by_version", "name_id", "number"),
)
PINS = Table(
    "pins",
    METADATA,
    Column("digest", STRING, ForeignKey("artefacts.digest"), primary_key=True),
    Column("owner", STRING, primary_key=True),
    Column("reason", STRING, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("at", STRING, nullable=False),
)
LEASE_OWNERS = Table(
    "lease_owners",
    METADATA,
    Column("owner", STRING, primary_key=True),
    Column("expires_at", STRING, nullable=False),
)
LEASES = Table(
    "leases",
    METADATA,
    Column("owner", STRING, ForeignKey("lease_owners.owner"), primary_key=True),
    Column("digest", STRING, primary_key=True, index=True),
)
WEBHOOKS = Table(
    "webhooks",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("url", STRING, nullable=False),
    Column("secret", STRING, nullable=False),
    Column("events", TEXT, nullable=False),
    Column("tenant", STRING),
    Column("allow_private", INTEGER, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("created_at", STRING, nullable=False),
    Column("removed_at", STRING),
    Column("cursor", INTEGER, nullable=False),
    Column("next_at", STRING),
    Column("claimed_by", STRING),
    Column("claimed_until", STRING),
)
DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("webhook_id", INTEGER, ForeignKey("webhooks.id"), primary_key=True),
    Column("sequence", INTEGER, ForeignKey("events.sequence"), primary_key=True),
    Column("state", STRING, nullable=False),
    Column("attempts", INTEGER, nullable=False),
    Column("next_at", STRING, nullable=False),
    Column("last_error", TEXT, nullable=False),
)
CLAIMS = Table(
    "claims",
    METADATA,
    Column("name", STRING, primary_key=True),
    Column("owner", STRING, nullable=False),
    Column("expires_at", STRING, nullable=False),
)
SIGNATURES = Table(
    "signatures",
    METADATA,
    Column("digest", STRING, ForeignKey("artefacts.digest"), primary_key=True),
    Column("key_id", STRING, primary_key=True),
    Column("signature", STRING, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("at", STRING, nullable=False),
)


def bump_generation(connection: Connection) -> None:
    """Count one change of names, so that caches elsewhere notice it."""
    connection.execute(
        update(COUNTERS).where(COUNTERS.c.name == "generation").values(value=COUNTERS.c.value + 1)
    )


GENERATION = select(COUNTERS.c.value).where(COUNTERS.c.name == "generation")

"""The ledger: hash-chained events instead of alias rows, tags, lineage, evaluations, retention.

What an older catalog knows of its past becomes the beginning of the chain.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Table,
    insert,
)

from adapters_store.catalog.columns import INTEGER, STRING, TEXT
from adapters_store.catalog.migrations.operations import (
    add_columns,
    create_indexes,
    create_tables,
    make_append_only,
)
from adapters_store.catalog.migrations.v0002_past import read_past
from adapters_store.catalog.migrations.v0002_stubs import (
    ALIAS_EVENTS,
    ARTEFACTS,
    COUNTERS,
    METADATA,
    VERSIONS,
)
from adapters_store.ledger.events import Head, as_row

PARENTS = Table(
    "parents",
    METADATA,
    Column("child", STRING, ForeignKey("artefacts.digest"), primary_key=True),
    Column("parent", STRING, primary_key=True, index=True),
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


def upgrade(connection: Connection) -> None:
    """Create the ledger's tables, and its chain from what is there."""
    add_columns(connection, ARTEFACTS, ARTEFACTS.c.collected_at)
    add_columns(
        connection, VERSIONS, VERSIONS.c.purged_at, VERSIONS.c.purged_by, VERSIONS.c.purge_reason
    )
    is_deleted = VERSIONS.c.deleted_at.isnot(None)
    create_indexes(
        connection,
        Index("ix_artefacts_data_digest", ARTEFACTS.c.data_digest),
        Index(
            "versions_deleted",
            VERSIONS.c.deleted_at,
            sqlite_where=is_deleted,
            postgresql_where=is_deleted,
        ),
    )
    create_tables(
        connection,
        PARENTS,
        EVENTS,
        EVENT_HEAD,
        TAGS,
        EVALUATIONS,
        PINS,
        LEASE_OWNERS,
        LEASES,
        WEBHOOKS,
        DELIVERIES,
        CLAIMS,
    )
    connection.execute(insert(COUNTERS).values(name="collections", value=0))
    head = Head()
    for events in read_past(connection):
        connection.execute(insert(EVENTS), [as_row(event) for event in events])
        head = Head(events[-1].sequence, events[-1].hash, events[-1].at)
    connection.execute(
        insert(EVENT_HEAD).values(id=1, sequence=head.sequence, hash=head.hash, at=head.at)
    )
    make_append_only(connection, EVENTS)
    ALIAS_EVENTS.drop(connection)

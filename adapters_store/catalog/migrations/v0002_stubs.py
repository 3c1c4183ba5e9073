"""The tables of the first release, as far as the second migration needs them."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, Table

from adapters_store.catalog.columns import INTEGER, STRING

METADATA = MetaData()

COUNTERS = Table(
    "counters",
    METADATA,
    Column("name", STRING, primary_key=True),
    Column("value", INTEGER),
)
BACKBONES = Table(
    "backbones",
    METADATA,
    Column("fingerprint", STRING, primary_key=True),
    Column("name", STRING),
    Column("family", STRING),
    Column("created_at", STRING),
)
ARTEFACTS = Table(
    "artefacts",
    METADATA,
    Column("digest", STRING, primary_key=True),
    Column("kind", STRING),
    Column("bank", STRING),
    Column("data_bytes", INTEGER),
    Column("data_digest", STRING),
    Column("collected_at", STRING),
)
NAMES = Table(
    "names",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("tenant", STRING),
    Column("name", STRING),
)
VERSIONS = Table(
    "versions",
    METADATA,
    Column("name_id", INTEGER, primary_key=True),
    Column("number", INTEGER, primary_key=True),
    Column("digest", STRING),
    Column("actor", STRING),
    Column("created_at", STRING),
    Column("deleted_at", STRING),
    Column("deleted_by", STRING),
    Column("delete_reason", STRING),
    Column("purged_at", STRING),
    Column("purged_by", STRING),
    Column("purge_reason", STRING),
)
ALIAS_EVENTS = Table(
    "alias_events",
    METADATA,
    Column("id", INTEGER, primary_key=True),
    Column("name_id", INTEGER),
    Column("alias", STRING),
    Column("from_number", INTEGER),
    Column("to_number", INTEGER),
    Column("actor", STRING),
    Column("reason", STRING),
    Column("at", STRING),
)

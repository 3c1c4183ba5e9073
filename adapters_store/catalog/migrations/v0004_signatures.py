"""Signatures of artefacts."""

from __future__ import annotations

from sqlalchemy import Column, Connection, ForeignKey, MetaData, Table

from adapters_store.catalog.columns import STRING
from adapters_store.catalog.migrations.operations import create_tables

METADATA = MetaData()

ARTEFACTS = Table("artefacts", METADATA, Column("digest", STRING, primary_key=True))
SIGNATURES = Table(
    "signatures",
    METADATA,
    Column("digest", STRING, ForeignKey("artefacts.digest"), primary_key=True),
    Column("key_id", STRING, primary_key=True),
    Column("signature", STRING, nullable=False),
    Column("actor", STRING, nullable=False),
    Column("at", STRING, nullable=False),
)


def upgrade(connection: Connection) -> None:
    """Create the table of signatures."""
    create_tables(connection, SIGNATURES)

"""Rows of backbones: a fingerprint and a name belong together for good."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Row, insert, select

from adapters_store.canonical import canonical_json
from adapters_store.catalog.journal import Journal
from adapters_store.catalog.schema import BACKBONES
from adapters_store.errors import ConflictError
from adapters_store.ledger.events import Subject

if TYPE_CHECKING:
    from adapters_store.backbone import BackboneRecord


def add(journal: Journal, record: BackboneRecord) -> BackboneRecord:
    """Store a record; the same fingerprint under the same name is answered from the store.

    Raises ConflictError where the name or the fingerprint is taken by another.
    """
    connection = journal.connection
    by_name = find(connection, name=record.name)
    by_fingerprint = find(connection, fingerprint=record.fingerprint)
    if by_fingerprint is not None and by_fingerprint == by_name:
        return by_fingerprint
    if by_name is not None:
        raise ConflictError(
            f"backbone name {record.name!r} stands for {by_name.fingerprint}; "
            f"found {record.fingerprint}",
            hint="Register this backbone under another name.",
        )
    if by_fingerprint is not None:
        raise ConflictError(
            f"backbone {record.fingerprint} is already registered as {by_fingerprint.name!r}; "
            f"asked for {record.name!r}",
            hint=f"Use the name {by_fingerprint.name!r}.",
        )
    created_at = journal.at
    connection.execute(
        insert(BACKBONES).values(
            fingerprint=record.fingerprint,
            name=record.name,
            family=record.family,
            config=canonical_json(dict(record.config)).decode(),
            created_at=created_at,
        )
    )
    journal.record(
        "backbone.added",
        Subject(digest=record.fingerprint),
        name=record.name,
        family=record.family,
    )
    return dataclasses.replace(record, config=dict(record.config), created_at=created_at)


def find(
    connection: Connection, *, fingerprint: str | None = None, name: str | None = None
) -> BackboneRecord | None:
    """The record with that fingerprint or name, or None."""
    query = select(BACKBONES)
    if fingerprint is not None:
        query = query.where(BACKBONES.c.fingerprint == fingerprint)
    if name is not None:
        query = query.where(BACKBONES.c.name == name)
    row = connection.execute(query).first()
    return None if row is None else _record(row)


def list_all(connection: Connection) -> list[BackboneRecord]:
    """Every backbone, by name."""
    return [_record(row) for row in connection.execute(select(BACKBONES).order_by("name"))]


def _record(row: Row[tuple[object, ...]]) -> BackboneRecord:
    from adapters_store.backbone import BackboneRecord

    fields = row._mapping
    return BackboneRecord(
        fields["name"],
        fields["fingerprint"],
        fields["family"],
        json.loads(fields["config"]),
        fields["created_at"],
    )

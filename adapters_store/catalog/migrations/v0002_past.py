"""The past of a catalog of the first release, told as events in order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from adapters_store.catalog.migrations.v0002_stubs import (
    ALIAS_EVENTS,
    ARTEFACTS,
    BACKBONES,
    NAMES,
    VERSIONS,
)
from adapters_store.ledger.events import Draft, Event, Head, Subject, seal

_CHUNK_EVENTS = 1000
_BACKBONE, _CREATED, _ALIAS, _DELETED = range(4)

Told = tuple[str, int, str, Draft]
"""Time, rank among events of one time, actor, and the event."""


def read_past(connection: Connection) -> Iterator[list[Event]]:
    """Every backbone, version, move of an alias and standing deletion, sealed, in chunks."""
    told = heapq.merge(
        _backbones(connection),
        _created(connection),
        _moves(connection),
        _deletions(connection),
        key=itemgetter(0, 1),
    )
    head = Head()
    while chunk := list(islice(told, _CHUNK_EVENTS)):
        events = []
        for at, _, actor, draft in chunk:
            events += seal([draft], head, at=max(at, head.at), actor=actor)
            head = Head(events[-1].sequence, events[-1].hash, events[-1].at)
        yield events


def _backbones(connection: Connection) -> Iterator[Told]:
    for row in connection.execute(select(BACKBONES).order_by(BACKBONES.c.created_at)):
        subject = Subject(digest=row.fingerprint)
        draft = Draft("backbone.added", subject, {"name": row.name, "family": row.family})
        yield row.created_at, _BACKBONE, "local", draft


def _created(connection: Connection) -> Iterator[Told]:
    query = _versions().order_by(VERSIONS.c.created_at, VERSIONS.c.name_id, VERSIONS.c.number)
    for row in connection.execute(query):
        payload = {"kind": row.kind, "bank": row.bank, "data_bytes": row.data_bytes}
        yield row.created_at, _CREATED, row.actor, _about("adapter_version.created", row, payload)


def _moves(connection: Connection) -> Iterator[Told]:
    query = (
        select(ALIAS_EVENTS, NAMES.c.tenant, NAMES.c.name, VERSIONS.c.digest)
        .join_from(ALIAS_EVENTS, NAMES, NAMES.c.id == ALIAS_EVENTS.c.name_id)
        .outerjoin(
            VERSIONS,
            (VERSIONS.c.name_id == NAMES.c.id) & (VERSIONS.c.number == ALIAS_EVENTS.c.to_number),
        )
        .order_by(ALIAS_EVENTS.c.at, ALIAS_EVENTS.c.id)
    )
    for row in connection.execute(query):
        subject = Subject(row.tenant, row.name, row.to_number, row.alias, row.digest)
        kind = "alias.removed" if row.to_number is None else "alias.set"
        payload = {"from_version": row.from_number, "reason": row.reason, "evidence": []}
        yield row.at, _ALIAS, row.actor, Draft(kind, subject, payload)


def _deletions(connection: Connection) -> Iterator[Told]:
    query = _versions().where(VERSIONS.c.deleted_at.isnot(None)).order_by(VERSIONS.c.deleted_at)
    for row in connection.execute(query):
        draft = _about("adapter_version.deleted", row, {"reason": row.delete_reason or ""})
        yield row.deleted_at, _DELETED, row.deleted_by or "local", draft


def _versions() -> Select[Any]:
    return (
        select(
            VERSIONS,
            NAMES.c.tenant,
            NAMES.c.name,
            ARTEFACTS.c.kind,
            ARTEFACTS.c.bank,
            ARTEFACTS.c.data_bytes,
        )
        .join_from(VERSIONS, NAMES, NAMES.c.id == VERSIONS.c.name_id)
        .join(ARTEFACTS, ARTEFACTS.c.digest == VERSIONS.c.digest)
    )


def _about(kind: str, row: Row[Any], payload: dict[str, Any]) -> Draft:
    return Draft(kind, Subject(row.tenant, row.name, row.number, None, row.digest), payload)

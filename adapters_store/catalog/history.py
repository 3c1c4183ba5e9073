"""The past: what a reference meant at a time, told from creation times and events."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection, and_, func, select

from adapters_store.catalog import versions
from adapters_store.catalog.schema import EVENTS, VERSIONS
from adapters_store.errors import NotFoundError
from adapters_store.names import DEFAULT_ALIAS, LATEST_ALIAS, Reference
from adapters_store.records import Version

_ENDS = ("adapter_version.deleted", "adapter_version.restored")


def resolve_at(connection: Connection, reference: Reference, at: str) -> Version:
    """The version that a reference meant at a time, as it is recorded now.

    ``at`` is as :func:`~adapters_store.catalog.clock.moment` gives it. Raises NotFoundError where
    the reference meant nothing then.
    """
    name_id = versions.name_id(connection, reference)
    number = _number(connection, reference, name_id, at)
    if number is None:
        raise NotFoundError(f"{reference} meant nothing at {at}")
    found = versions.find(connection, dataclasses.replace(reference, alias=None, version=number))
    if found.created_at > at:
        raise NotFoundError(
            f"{reference} meant nothing at {at}: {found.full_name}:{number} was created at "
            f"{found.created_at}"
        )
    if number in _dead(connection, reference, at, number):
        raise NotFoundError(
            f"{reference} meant nothing at {at}: {found.full_name}:{number} was deleted then"
        )
    return found


def _number(connection: Connection, reference: Reference, name_id: int, at: str) -> int | None:
    if reference.version is not None:
        return reference.version
    if reference.digest is not None:
        held = _newest(connection, reference, name_id, at)
        return versions.find(connection, reference).number if held is None else held
    alias = reference.alias or DEFAULT_ALIAS
    if alias != LATEST_ALIAS:
        pointed = _pointed_at(connection, reference, alias, at)
        if pointed is not None or reference.alias is not None:
            return pointed
    return _newest(connection, reference, name_id, at)


def _pointed_at(connection: Connection, reference: Reference, alias: str, at: str) -> int | None:
    query = (
        select(EVENTS.c.version)
        .where(
            EVENTS.c.tenant == reference.tenant,
            EVENTS.c.name == reference.name,
            EVENTS.c.type.in_(("alias.removed", "alias.set")),
            EVENTS.c.alias == alias,
            EVENTS.c.at <= at,
        )
        .order_by(EVENTS.c.sequence.desc())
        .limit(1)
    )
    number: int | None = connection.execute(query).scalar()
    return number


def _newest(connection: Connection, reference: Reference, name_id: int, at: str) -> int | None:
    """The newest version that was live, among those of the reference's digest where it has one."""
    dead = _dead(connection, reference, at)
    query = select(VERSIONS.c.number).where(
        VERSIONS.c.name_id == name_id, VERSIONS.c.created_at <= at
    )
    if reference.digest is not None:
        query = query.where(VERSIONS.c.digest == reference.digest)
    numbers = connection.execute(query.order_by(VERSIONS.c.number.desc())).scalars()
    return next((number for number in numbers if number not in dead), None)


def _dead(
    connection: Connection, reference: Reference, at: str, number: int | None = None
) -> set[int]:
    """Versions of a name, or the one of that number, that were deleted at a time."""
    where = [
        EVENTS.c.tenant == reference.tenant,
        EVENTS.c.name == reference.name,
        EVENTS.c.type.in_(_ENDS),
        EVENTS.c.at <= at,
    ]
    if number is not None:
        where.append(EVENTS.c.version == number)
    last = (
        select(EVENTS.c.version, func.max(EVENTS.c.sequence).label("sequence"))
        .where(*where)
        .group_by(EVENTS.c.version)
        .subquery()
    )
    query = select(EVENTS.c.version).where(
        and_(EVENTS.c.sequence == last.c.sequence, EVENTS.c.type == _ENDS[0])
    )
    return set(connection.execute(query).scalars())

"""Aliases: mutable pointers with compare-and-set and an append-only history."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from adapters_store.catalog.clock import now
from adapters_store.catalog.schema import ALIAS_EVENTS, ALIASES
from adapters_store.catalog.versions import name_id as find_name_id
from adapters_store.errors import ConflictError, NotFoundError
from adapters_store.names import Reference
from adapters_store.records import AliasEvent


def move(
    connection: Connection,
    name_id: int,
    alias: str,
    number: int | None,
    *,
    actor: str,
    reason: str,
    expected: int | None = None,
) -> None:
    """Point an alias at a version, or remove it with ``number`` None; records one event.

    ``expected`` is the version it must point at now, 0 for none; None does not compare. A move
    that changes nothing records nothing. Raises ConflictError where the comparison fails.
    """
    where = (ALIASES.c.name_id == name_id, ALIASES.c.alias == alias)
    present: int | None = connection.execute(select(ALIASES.c.number).where(*where)).scalar()
    if expected is not None and expected != (present or 0):
        state = f"points at version {present}" if present else "is not set"
        raise ConflictError(
            f"alias {alias!r} {state}; expected "
            + (f"version {expected}" if expected else "that it is not set"),
            param="expected_version",
        )
    if number == present:
        return
    if number is None:
        connection.execute(delete(ALIASES).where(*where))
    elif present is None:
        connection.execute(insert(ALIASES).values(name_id=name_id, alias=alias, number=number))
    else:
        connection.execute(update(ALIASES).where(*where).values(number=number))
    connection.execute(
        insert(ALIAS_EVENTS).values(
            name_id=name_id,
            alias=alias,
            from_number=present,
            to_number=number,
            actor=actor,
            reason=reason,
            at=now(),
        )
    )


def remove(
    connection: Connection,
    reference: Reference,
    alias: str,
    *,
    actor: str,
    reason: str,
    expected: int | None,
) -> None:
    """Remove an alias; raises NotFoundError where it is not set, ConflictError as ``move``."""
    name_id = find_name_id(connection, reference)
    if alias not in read_all(connection, reference):
        raise NotFoundError(f"{reference.full_name} has no alias {alias!r}")
    move(connection, name_id, alias, None, actor=actor, reason=reason, expected=expected)


def read_all(connection: Connection, reference: Reference) -> dict[str, int]:
    """Every alias of a name with the version it points at."""
    query = select(ALIASES.c.alias, ALIASES.c.number).where(
        ALIASES.c.name_id == find_name_id(connection, reference)
    )
    return {row.alias: row.number for row in connection.execute(query.order_by(ALIASES.c.alias))}


def history(connection: Connection, reference: Reference) -> list[AliasEvent]:
    """Every move of every alias of a name, oldest first; raises NotFoundError."""
    name_id = find_name_id(connection, reference)
    query = select(ALIAS_EVENTS).where(ALIAS_EVENTS.c.name_id == name_id)
    return [
        AliasEvent(
            tenant=reference.tenant,
            name=reference.name,
            alias=row.alias,
            from_version=row.from_number,
            to_version=row.to_number,
            actor=row.actor,
            reason=row.reason,
            at=row.at,
        )
        for row in connection.execute(query.order_by(ALIAS_EVENTS.c.id))
    ]

"""Aliases: mutable pointers with compare-and-set; their history is in the events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from adapters_store.catalog.journal import Journal
from adapters_store.catalog.schema import ALIASES, EVENTS
from adapters_store.catalog.versions import name_id as find_name_id
from adapters_store.errors import ConflictError, NotFoundError
from adapters_store.ledger.events import Event, Subject, check_note, from_row
from adapters_store.names import Reference
from adapters_store.records import AliasEvent

ALIAS_EVENT_TYPES = ("alias.removed", "alias.set")

_POINT = (
    update(ALIASES)
    .where(ALIASES.c.name_id == bindparam("its_name_id"), ALIASES.c.alias == bindparam("its_alias"))
    .values(number=bindparam("its_number"))
)


def move(
    journal: Journal,
    name_id: int,
    target: Subject,
    *,
    reason: str,
    expected: int | None = None,
    evidence: Sequence[int] = (),
) -> None:
    """Point an alias at the version that ``target`` names, or remove it where that is None.

    ``expected`` is the version it must point at now, 0 for none; None does not compare.
    ``evidence`` are ids of evaluations. A move that changes nothing records nothing. Raises
    ConflictError where the comparison fails.
    """
    connection, alias, number = journal.connection, target.alias, target.version
    where = (ALIASES.c.name_id == name_id, ALIASES.c.alias == alias)
    present: int | None = connection.execute(select(ALIASES.c.number).where(*where)).scalar()
    if expected is not None and expected != (present or 0):
        state = f"points at version {present}" if present else "is not set"
        raise ConflictError(
            f"{target.tenant}/{target.name}@{alias} {state}; expected "
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
    record_move(journal, target, present, reason=reason, evidence=evidence)


def record_move(
    journal: Journal,
    target: Subject,
    present: int | None,
    *,
    reason: str,
    evidence: Sequence[int] = (),
) -> None:
    """The event of one move; the caller writes the row, as ``move`` and ``write`` do."""
    journal.record(
        "alias.set" if target.version is not None else "alias.removed",
        target,
        from_version=present,
        reason=check_note(reason, "reason"),
        evidence=list(evidence),
    )


def write(
    connection: Connection,
    numbers: Mapping[tuple[int, str], int],
    *,
    known: Collection[tuple[int, str]],
) -> None:
    """Let many aliases, each by its name's key, point at versions; those in ``known`` are set."""
    added, moved = [], []
    for (name_id, alias), number in numbers.items():
        row = {"name_id": name_id, "alias": alias, "number": number}
        if (name_id, alias) in known:
            moved.append({f"its_{column}": value for column, value in row.items()})
        else:
            added.append(row)
    if added:
        connection.execute(insert(ALIASES), added)
    if moved:
        connection.execute(_POINT, moved)


def remove(
    journal: Journal, reference: Reference, alias: str, *, reason: str, expected: int | None
) -> None:
    """Remove an alias; raises NotFoundError where it is not set, ConflictError as ``move``."""
    name_id = find_name_id(journal.connection, reference)
    if alias not in read_all(journal.connection, reference):
        raise NotFoundError(f"{reference.full_name} has no alias {alias!r}")
    target = Subject(reference.tenant, reference.name, alias=alias)
    move(journal, name_id, target, reason=reason, expected=expected)


def read_all(connection: Connection, reference: Reference) -> dict[str, int]:
    """Every alias of a name with the version it points at."""
    query = select(ALIASES.c.alias, ALIASES.c.number).where(
        ALIASES.c.name_id == find_name_id(connection, reference)
    )
    return {row.alias: row.number for row in connection.execute(query.order_by(ALIASES.c.alias))}


def history(connection: Connection, reference: Reference) -> list[AliasEvent]:
    """Every move of every alias of a name, oldest first; raises NotFoundError."""
    find_name_id(connection, reference)
    query = select(EVENTS).where(
        EVENTS.c.tenant == reference.tenant,
        EVENTS.c.name == reference.name,
        EVENTS.c.type.in_(ALIAS_EVENT_TYPES),
    )
    rows = connection.execute(query.order_by(EVENTS.c.sequence))
    return [_as_move(from_row(row)) for row in rows]


def _as_move(event: Event) -> AliasEvent:
    subject = event.subject
    return AliasEvent(
        tenant=subject.tenant or "",
        name=subject.name or "",
        alias=subject.alias or "",
        from_version=event.payload["from_version"],
        to_version=subject.version,
        actor=event.actor,
        reason=event.payload["reason"],
        at=event.at,
        evidence=tuple(event.payload["evidence"]),
        sequence=event.sequence,
    )

"""Reading events: pages of the log, and the order of things at a time in the past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, select

from adapters_store.catalog.schema import EVENTS
from adapters_store.ledger.events import Event, from_row

_PAGE_EVENTS = 1000
_BEFORE_ALL = -(2**62)


def page(
    connection: Connection,
    *,
    after: int,
    limit: int,
    tenant: str | None = None,
    types: Sequence[str] | None = None,
) -> list[Event]:
    """Events after a sequence number (exclusive), oldest first."""
    query = select(EVENTS).where(EVENTS.c.sequence > after)
    if tenant is not None:
        query = query.where(EVENTS.c.tenant == tenant)
    if types is not None:
        query = query.where(EVENTS.c.type.in_(types))
    rows = connection.execute(query.order_by(EVENTS.c.sequence).limit(limit))
    return [from_row(row) for row in rows]


def walk(connection: Connection) -> Iterator[Event]:
    """Every event, oldest first, a bounded number in memory."""
    after = _BEFORE_ALL
    while found := page(connection, after=after, limit=_PAGE_EVENTS):
        yield from found
        after = found[-1].sequence


def find(connection: Connection, sequence: int) -> Event | None:
    """The event of that number, or None."""
    row = connection.execute(select(EVENTS).where(EVENTS.c.sequence == sequence)).first()
    return None if row is None else from_row(row)

"""The queue behind deliveries: cursors over the event log, claims, failures and their times.

The event log is the outbox. Each webhook is served by one deliverer at a time, under a claim that
ends by itself; every answer is recorded only while the claim holds.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from adapters_store.catalog import events as event_rows
from adapters_store.catalog.clock import now, shifted
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import read_head
from adapters_store.catalog.schema import DELIVERIES, EVENT_HEAD, WEBHOOKS
from adapters_store.ledger.events import EVENT_TYPES, Event, matches

DEAD = "dead"
RETRYING = "retrying"
_MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Claimed:
    """A webhook that is served under a claim, with what a delivery needs."""

    id: int
    url: str
    secret: str
    events: tuple[str, ...]
    tenant: str | None
    allow_private: bool
    token: str


@dataclass(frozen=True, slots=True)
class Due:
    """An event to deliver now; ``num_attempts`` failed before. ``is_again`` is a dead letter's."""

    event: Event
    num_attempts: int
    is_again: bool


class DeliveryQueue:
    """What is due, for any number of deliverers; a claim ends ``lease_s`` after its last word."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s

    def claim(self) -> Claimed | None:
        """The webhook that waits longest, or None where none is due."""
        with self._database.read() as connection:
            if connection.execute(_due(now())).first() is None:
                return None
        with self._database.write() as connection:
            row = connection.execute(_due(now())).first()
            if row is None:
                return None
            token = secrets.token_hex(8)
            values = {"claimed_by": token, "claimed_until": shifted(now(), self._lease_s)}
            connection.execute(update(WEBHOOKS).where(WEBHOOKS.c.id == row.id).values(values))
        return Claimed(
            id=row.id,
            url=row.url,
            secret=row.secret,
            events=tuple(json.loads(row.events)),
            tenant=row.tenant,
            allow_private=bool(row.allow_private),
            token=token,
        )

    def next(self, claimed: Claimed) -> Due | None:
        """The next event of a claimed webhook; extends the claim.

        None where nothing is due any more, or the claim was lost. The log is searched outside the
        write lock: the claim keeps the cursor where it is.
        """
        with self._database.write() as connection:
            if not self._extend(connection, claimed):
                return None
            place = select(WEBHOOKS.c.cursor, WEBHOOKS.c.next_at).where(*_is_ours(claimed))
            row = connection.execute(place).one()
            again = _again(connection, claimed, row.cursor)
        if again is not None:
            return again
        if row.next_at is not None and row.next_at > now():
            return None
        with self._database.read() as connection:
            end = read_head(connection).sequence
            due = _in_order(connection, claimed, row.cursor)
        if due is None:
            with self._database.write() as connection:
                _move(connection, claimed, cursor=end)
        return due

    def succeeded(self, claimed: Claimed, due: Due) -> None:
        """The receiver took the event; nothing is recorded where the claim was lost."""
        with self._database.write() as connection:
            if self._extend(connection, claimed):
                connection.execute(delete(DELIVERIES).where(*_is_it(claimed, due)))
                if not due.is_again:
                    _move(connection, claimed, cursor=due.event.sequence, next_at=None)

    def failed(self, claimed: Claimed, due: Due, error: str, retry_after_s: float | None) -> None:
        """The receiver did not take it; with None it is given up and becomes a dead letter.

        Nothing is recorded where the claim was lost.
        """
        with self._database.write() as connection:
            if not self._extend(connection, claimed):
                return
            next_at = shifted(now(), retry_after_s or 0)
            connection.execute(delete(DELIVERIES).where(*_is_it(claimed, due)))
            connection.execute(
                insert(DELIVERIES).values(
                    webhook_id=claimed.id,
                    sequence=due.event.sequence,
                    state=DEAD if retry_after_s is None else RETRYING,
                    attempts=due.num_attempts + 1,
                    next_at=next_at,
                    last_error=error[:_MAX_ERROR_CHARACTERS],
                )
            )
            if due.is_again:
                return
            if retry_after_s is None:
                _move(connection, claimed, cursor=due.event.sequence, next_at=None)
            else:
                _move(connection, claimed, next_at=next_at)

    def release(self, claimed: Claimed) -> None:
        """Let others serve the webhook."""
        with self._database.write() as connection:
            ended = {"claimed_by": None, "claimed_until": now()}
            connection.execute(update(WEBHOOKS).where(*_is_ours(claimed)).values(ended))

    def _extend(self, connection: Connection, claimed: Claimed) -> bool:
        """Keep the claim for another lease; False where it was lost or the webhook removed."""
        until = shifted(now(), self._lease_s)
        extended = update(WEBHOOKS).where(*_is_ours(claimed)).values(claimed_until=until)
        return connection.execute(extended).rowcount == 1


def _due(at: str) -> Select[Any]:
    """Webhooks that nobody serves and that have something due, the longest waiting first."""
    head = select(EVENT_HEAD.c.sequence).scalar_subquery()
    retry = (
        select(DELIVERIES.c.sequence)
        .where(
            DELIVERIES.c.webhook_id == WEBHOOKS.c.id,
            DELIVERIES.c.state == RETRYING,
            DELIVERIES.c.sequence <= WEBHOOKS.c.cursor,
            DELIVERIES.c.next_at <= at,
        )
        .exists()
    )
    is_free = or_(WEBHOOKS.c.claimed_by.is_(None), WEBHOOKS.c.claimed_until <= at)
    is_behind = and_(
        WEBHOOKS.c.cursor < head, or_(WEBHOOKS.c.next_at.is_(None), WEBHOOKS.c.next_at <= at)
    )
    return (
        select(WEBHOOKS)
        .where(WEBHOOKS.c.removed_at.is_(None), is_free, or_(is_behind, retry))
        .order_by(func.coalesce(WEBHOOKS.c.claimed_until, ""), WEBHOOKS.c.id)
        .limit(1)
    )


def _again(connection: Connection, claimed: Claimed, cursor: int) -> Due | None:
    """A dead letter that was asked for again and is due."""
    query = (
        select(DELIVERIES)
        .where(
            DELIVERIES.c.webhook_id == claimed.id,
            DELIVERIES.c.state == RETRYING,
            DELIVERIES.c.sequence <= cursor,
            DELIVERIES.c.next_at <= now(),
        )
        .order_by(DELIVERIES.c.sequence)
        .limit(1)
    )
    row = connection.execute(query).first()
    event = None if row is None else event_rows.find(connection, row.sequence)
    return None if row is None or event is None else Due(event, row.attempts, is_again=True)


def _in_order(connection: Connection, claimed: Claimed, cursor: int) -> Due | None:
    """The first event after the cursor that the webhook wants."""
    types = [known for known in EVENT_TYPES if matches(claimed.events, known)]
    found = event_rows.page(connection, after=cursor, limit=1, tenant=claimed.tenant, types=types)
    if not found:
        return None
    (event,) = found
    query = select(DELIVERIES.c.attempts).where(
        DELIVERIES.c.webhook_id == claimed.id, DELIVERIES.c.sequence == event.sequence
    )
    num_attempts: int | None = connection.execute(query).scalar()
    return Due(event, num_attempts or 0, is_again=False)


def _move(connection: Connection, claimed: Claimed, **columns: Any) -> None:
    connection.execute(update(WEBHOOKS).where(*_is_ours(claimed)).values(columns))


def _is_ours(claimed: Claimed) -> tuple[ColumnElement[bool], ...]:
    return (
        WEBHOOKS.c.id == claimed.id,
        WEBHOOKS.c.claimed_by == claimed.token,
        WEBHOOKS.c.removed_at.is_(None),
    )


def _is_it(claimed: Claimed, due: Due) -> tuple[ColumnElement[bool], ...]:
    return DELIVERIES.c.webhook_id == claimed.id, DELIVERIES.c.sequence == due.event.sequence

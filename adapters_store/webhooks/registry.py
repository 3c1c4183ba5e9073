"""Subscriptions: who is told of which events, and what could not be told."""

from __future__ import annotations

import builtins
import json
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from adapters_store.catalog.clock import now
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import journal
from adapters_store.catalog.schema import DELIVERIES, EVENTS, WEBHOOKS
from adapters_store.errors import NotFoundError, UsageError
from adapters_store.ledger.events import Subject, check_note, check_patterns
from adapters_store.names import check_name
from adapters_store.webhooks.queue import DEAD, RETRYING, DeliveryQueue
from adapters_store.webhooks.records import DeadLetter, Webhook
from adapters_store.webhooks.target import check_now, check_url

MIN_SECRET_CHARACTERS = 16
MAX_SECRET_CHARACTERS = 200


class Webhooks:
    """``store.webhooks``. A :class:`~adapters_store.webhooks.deliverer.Deliverer` does the work.

    Secrets are kept in the catalog as they are, because deliveries are signed with them; whoever
    reads the catalog can sign too.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        url: str,
        secret: str | None = None,
        *,
        events: Sequence[str] = ("*",),
        tenant: str | None = None,
        allow_private: bool = False,
        actor: str = "local",
    ) -> Webhook:
        """Tell ``url`` of every event from now on whose type one of the patterns covers.

        With ``tenant`` only of that tenant's. Without a secret one is made; the answer is the only
        place where it is shown. Raises UsageError for a URL that is not http(s), for patterns
        without a type and for a short secret; ForbiddenError for a URL that leads to a private
        address, unless ``allow_private``.
        """
        parts = check_url(url)
        patterns = check_patterns(events)
        if tenant is not None:
            check_name(tenant, "tenant")
        secret = secrets.token_urlsafe(32) if secret is None else _checked_secret(secret)
        if not allow_private:
            check_now(url)
        with journal(self._database, actor) as change:
            at, by = change.at, change.actor
            row = {
                "url": url,
                "secret": secret,
                "events": json.dumps(patterns),
                "tenant": tenant,
                "allow_private": int(allow_private),
                "actor": by,
                "created_at": at,
            }
            place = insert(WEBHOOKS).values(cursor=0, **row).returning(WEBHOOKS.c.id)
            number = int(change.connection.execute(place).scalar_one())
            change.record(
                "webhook.added",
                Subject(tenant=tenant),
                id=number,
                host=parts.netloc,
                events=list(patterns),
                allow_private=allow_private,
            )
            cursor = change.last_sequence
            is_it = WEBHOOKS.c.id == number
            change.connection.execute(update(WEBHOOKS).where(is_it).values(cursor=cursor))
        return Webhook(
            id=number,
            url=url,
            events=patterns,
            tenant=tenant,
            allow_private=allow_private,
            actor=by,
            created_at=at,
            cursor=cursor,
            secret=secret,
        )

    def queue(self, lease_s: float) -> DeliveryQueue:
        """What a deliverer works on."""
        return DeliveryQueue(self._database, lease_s)

    def list(self, tenant: str | None = None) -> builtins.list[Webhook]:
        """The subscriptions, or one tenant's own, by id."""
        query = _WITH_STATE.where(WEBHOOKS.c.removed_at.is_(None)).order_by(WEBHOOKS.c.id)
        if tenant is not None:
            query = query.where(WEBHOOKS.c.tenant == tenant)
        with self._database.read() as connection:
            return [_as_webhook(row) for row in connection.execute(query)]

    def remove(self, webhook_id: int, *, actor: str = "local") -> None:
        """End a subscription, forget its secret and its dead letters; raises NotFoundError."""
        with journal(self._database, actor) as change:
            row = _find(change.connection, webhook_id)
            change.connection.execute(
                update(WEBHOOKS)
                .where(WEBHOOKS.c.id == webhook_id)
                .values(removed_at=change.at, secret="")
            )
            change.connection.execute(
                delete(DELIVERIES).where(DELIVERIES.c.webhook_id == webhook_id)
            )
            change.record("webhook.removed", Subject(tenant=row.tenant), id=webhook_id)

    def dead_letters(
        self, webhook_id: int | None = None, *, limit: int = 1000
    ) -> builtins.list[DeadLetter]:
        """Deliveries that were given up, by webhook and event."""
        query = (
            select(DELIVERIES, EVENTS.c.type, EVENTS.c.at)
            .join(EVENTS, EVENTS.c.sequence == DELIVERIES.c.sequence)
            .where(DELIVERIES.c.state == DEAD)
            .order_by(DELIVERIES.c.webhook_id, DELIVERIES.c.sequence)
            .limit(limit)
        )
        if webhook_id is not None:
            query = query.where(DELIVERIES.c.webhook_id == webhook_id)
        with self._database.read() as connection:
            return [
                DeadLetter(
                    row.webhook_id, row.sequence, row.type, row.at, row.attempts, row.last_error
                )
                for row in connection.execute(query)
            ]

    def redeliver(self, webhook_id: int, sequence: int | None = None) -> int:
        """Try one dead letter of a webhook again, or all of them; returns how many.

        They come when they come, also after later events. Raises NotFoundError where there is no
        such webhook, or no such dead letter.
        """
        with self._database.write() as connection:
            _find(connection, webhook_id)
            again = update(DELIVERIES).where(
                DELIVERIES.c.webhook_id == webhook_id, DELIVERIES.c.state == DEAD
            )
            if sequence is not None:
                again = again.where(DELIVERIES.c.sequence == sequence)
            changed = connection.execute(
                again.values(state=RETRYING, attempts=0, next_at=now())
            ).rowcount
            if sequence is not None and not changed:
                raise NotFoundError(f"webhook {webhook_id} has no dead letter {sequence}")
            return changed


_NUM_DEAD = (
    select(func.count())
    .where(DELIVERIES.c.webhook_id == WEBHOOKS.c.id, DELIVERIES.c.state == DEAD)
    .correlate(WEBHOOKS)
    .scalar_subquery()
)
_LAST_ERROR = (
    select(DELIVERIES.c.last_error)
    .where(DELIVERIES.c.webhook_id == WEBHOOKS.c.id, DELIVERIES.c.state == RETRYING)
    .order_by(DELIVERIES.c.sequence.desc())
    .limit(1)
    .correlate(WEBHOOKS)
    .scalar_subquery()
)
_WITH_STATE = select(WEBHOOKS, _NUM_DEAD.label("num_dead"), _LAST_ERROR.label("last_error"))


def _as_webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        id=row.id,
        url=row.url,
        events=tuple(json.loads(row.events)),
        tenant=row.tenant,
        allow_private=bool(row.allow_private),
        actor=row.actor,
        created_at=row.created_at,
        cursor=row.cursor,
        next_at=row.next_at,
        last_error=row.last_error,
        num_dead=row.num_dead,
    )


def _find(connection: Connection, webhook_id: int) -> Row[Any]:
    query = select(WEBHOOKS).where(WEBHOOKS.c.id == webhook_id, WEBHOOKS.c.removed_at.is_(None))
    row = connection.execute(query).first()
    if row is None:
        raise NotFoundError(f"no webhook {webhook_id}", hint="List the webhooks to see their ids.")
    return row


def _checked_secret(secret: str) -> str:
    if not MIN_SECRET_CHARACTERS <= len(secret) <= MAX_SECRET_CHARACTERS:
        raise UsageError(
            f"the webhook secret has {len(secret)} characters; expected {MIN_SECRET_CHARACTERS} "
            f"to {MAX_SECRET_CHARACTERS}",
            hint="Leave it out to have one made.",
            param="secret",
        )
    return check_note(secret, "secret")

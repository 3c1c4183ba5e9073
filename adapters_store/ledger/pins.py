"""Pins: content that is kept for as long as somebody wants it."""

from __future__ import annotations

import builtins
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from adapters_store.catalog import versions as version_rows
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import journal
from adapters_store.catalog.schema import PINS
from adapters_store.errors import ConflictError, NotFoundError, UsageError
from adapters_store.ledger.events import Subject, check_note
from adapters_store.names import Reference, is_digest, parsed

MAX_OWNER_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Pin:
    """Who keeps an artefact digest, since when and why."""

    digest: str
    owner: str
    reason: str
    actor: str
    at: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self)


class Pins:
    """``store.pins``: one per artefact and owner. A pinned artefact, and the bank of a pinned
    routing, outlives every deletion window."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, reference: str | Reference, owner: str, reason: str = "", *, actor: str = "local"
    ) -> Pin:
        """Pin the content that a live reference means now; a pin that is there is answered.

        Raises UsageError for an empty owner, NotFoundError, DeletedError, and ConflictError where
        the owner pinned the same content for another reason.
        """
        if not owner.strip():
            raise UsageError("a pin's owner is empty; expected who keeps it", param="owner")
        check_note(owner, "owner", max_characters=MAX_OWNER_CHARACTERS)
        check_note(reason, "reason")
        with journal(self._database, actor) as change:
            found = version_rows.resolve(change.connection, parsed(reference))
            query = select(PINS).where(PINS.c.digest == found.digest, PINS.c.owner == owner)
            row = change.connection.execute(query).first()
            if row is not None:
                if row.reason != reason:
                    raise ConflictError(
                        f"{owner!r} has pinned {found.reference} already: {row.reason!r}",
                        hint="Remove that pin first, or pin under another owner.",
                    )
                return Pin(**row._mapping)
            pin = Pin(found.digest, owner, reason, change.actor, change.at)
            change.connection.execute(insert(PINS).values(asdict(pin)))
            change.record("pin.added", found.subject, owner=owner, reason=reason)
        return pin

    def remove(self, reference: str | Reference, owner: str, *, actor: str = "local") -> None:
        """Remove a pin, by reference or by the artefact digest; raises NotFoundError."""
        with journal(self._database, actor) as change:
            if isinstance(reference, str) and is_digest(reference):
                subject = Subject(digest=reference)
            else:
                subject = version_rows.find(change.connection, parsed(reference)).subject
            gone = change.connection.execute(
                delete(PINS).where(PINS.c.digest == subject.digest, PINS.c.owner == owner)
            )
            if not gone.rowcount:
                raise NotFoundError(f"{owner!r} has no pin on {subject.digest}")
            change.record("pin.removed", subject, owner=owner)

    def list(self, *, owner: str | None = None, digest: str | None = None) -> builtins.list[Pin]:
        """Pins by digest and owner."""
        query = select(PINS).order_by(PINS.c.digest, PINS.c.owner)
        if owner is not None:
            query = query.where(PINS.c.owner == owner)
        if digest is not None:
            query = query.where(PINS.c.digest == digest)
        with self._database.read() as connection:
            return [Pin(**row._mapping) for row in connection.execute(query)]

"""The audit log: every change in its order, and the walk that says whether it was touched."""

from __future__ import annotations

import builtins
from collections.abc import Iterator

from adapters_store.catalog import events as event_rows
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import read_head
from adapters_store.errors import UsageError
from adapters_store.ledger.events import (
    EVENT_TYPES,
    GENESIS_HASH,
    AuditReport,
    Break,
    Event,
    Head,
    check_patterns,
    compute_hash,
    matches,
)
from adapters_store.names import check_name

MAX_PAGE_EVENTS = 10_000


class Audit:
    """``store.audit``: reads the log; only changes of the store write it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        tenant: str | None = None,
        type: str | None = None,
    ) -> builtins.list[Event]:
        """A page of events after a sequence number, oldest first.

        ``type`` is a type or a pattern such as ``alias.*``. Raises UsageError for a type that
        does not exist and a limit outside 1 to ``MAX_PAGE_EVENTS``.
        """
        if not 1 <= limit <= MAX_PAGE_EVENTS:
            raise UsageError(f"limit is {limit}; expected 1 to {MAX_PAGE_EVENTS}", param="limit")
        if tenant is not None:
            check_name(tenant, "tenant")
        types = None
        if type is not None:
            patterns = check_patterns([type])
            types = [known for known in EVENT_TYPES if matches(patterns, known)]
        with self._database.read() as connection:
            return event_rows.page(connection, after=after, limit=limit, tenant=tenant, types=types)

    def head(self) -> Head:
        """The end of the chain. Kept outside the store, it proves what came before it."""
        with self._database.read() as connection:
            return read_head(connection)

    def verify(self, *, expected_head: tuple[int, str] | None = None) -> AuditReport:
        """Walk the whole chain and report the first break.

        ``expected_head`` is a sequence number and hash that :meth:`head` gave earlier; the chain
        must still hold that event.
        """
        with self._database.read() as connection:
            head = read_head(connection)
            walk = _Walk(expected_head)
            first_break = walk.along(event_rows.walk(connection)) or walk.at_end(head)
            return AuditReport(walk.last, head, first_break)


class _Walk:
    """One pass over the chain; ``last`` is the sequence number of the last event that held."""

    def __init__(self, expected: tuple[int, str] | None) -> None:
        self.last = 0
        self._hash = GENESIS_HASH
        self._expected = expected

    def along(self, events: Iterator[Event]) -> Break | None:
        """The first break among the events."""
        for event in events:
            found = self._check(event)
            if found is not None:
                return found
            self.last, self._hash = event.sequence, event.hash
        return None

    def at_end(self, head: Head) -> Break | None:
        """What the recorded and the expected head say about the end."""
        number, end_hash = self._expected or (0, GENESIS_HASH)
        if self.last < max(head.sequence, number):
            return Break(
                self.last + 1,
                "truncated",
                f"the log ends at event {self.last}; it had {max(head.sequence, number)} events",
            )
        if (self.last, self._hash) != (head.sequence, head.hash):
            return Break(
                self.last,
                "rewritten",
                f"the log ends at event {self.last} with hash {self._hash}; recorded as its end "
                f"is event {head.sequence} with hash {head.hash}",
            )
        if number == 0 and end_hash != GENESIS_HASH:
            return _unexpected(0, GENESIS_HASH, end_hash)
        return None

    def _check(self, event: Event) -> Break | None:
        number, first = event.sequence, self.last + 1
        if number < first:
            return Break(number, "out_of_order", f"event {number} stands before event {first}")
        if number > first:
            missing = f"event {first}" if number == first + 1 else f"events {first} to {number - 1}"
            return Break(first, "missing", f"missing: {missing}; event {number} comes next")
        if event.previous_hash != self._hash:
            message = (
                f"event {number} does not follow event {self.last}: one of them was moved or "
                f"replaced; it names {event.previous_hash}, the event before it has {self._hash}"
            )
            return Break(number, "out_of_order", message)
        computed = compute_hash(event)
        if computed != event.hash:
            message = f"event {number} was altered: its row gives {computed}, recorded is "
            return Break(number, "altered", message + event.hash)
        if self._expected is not None and number == self._expected[0]:
            expected_hash = self._expected[1]
            if event.hash != expected_hash:
                return _unexpected(number, event.hash, expected_hash)
        return None


def _unexpected(number: int, found: str, expected: str) -> Break:
    return Break(number, "rewritten", f"event {number} has hash {found}; expected was {expected}")

"""The journal: what one transaction changes becomes events, written with the change or not at all.

The catalog's write lock gives the events of all writers one order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sqlalchemy import Connection, insert, select, update

from adapters_store.catalog.clock import now
from adapters_store.catalog.database import Database
from adapters_store.catalog.schema import EVENT_HEAD, EVENTS
from adapters_store.ledger.events import Draft, Head, Subject, as_row, check_note, seal

_CHUNK_EVENTS = 1000
MAX_ACTOR_CHARACTERS = 200


class Journal:
    """Collects the events of one write transaction; :func:`journal` opens and writes it.

    ``at`` is the time of everything the transaction does: now, or the time of the last event
    where a clock ran backwards.
    """

    def __init__(self, connection: Connection, actor: str) -> None:
        self.connection = connection
        self.actor = check_note(actor, "actor", max_characters=MAX_ACTOR_CHARACTERS)
        self.head = read_head(connection)
        self.at = max(now(), self.head.at)
        self._drafts: list[Draft] = []

    @property
    def last_sequence(self) -> int:
        """The sequence number of the latest event, those of this transaction included."""
        return self.head.sequence + len(self._drafts)

    def record(self, event_type: str, subject: Subject, **payload: Any) -> None:
        """Add one event; ``payload`` is JSON."""
        self._drafts.append(Draft(event_type, subject, payload))

    def write(self) -> None:
        """Append the events to the chain."""
        if not self._drafts:
            return
        rows = iter(seal(self._drafts, self.head, at=self.at, actor=self.actor))
        last = None
        while chunk := list(islice(rows, _CHUNK_EVENTS)):
            self.connection.execute(insert(EVENTS), [as_row(event) for event in chunk])
            last = chunk[-1]
        assert last is not None
        self.connection.execute(
            update(EVENT_HEAD).values(sequence=last.sequence, hash=last.hash, at=last.at)
        )


@contextmanager
def journal(database: Database, actor: str) -> Iterator[Journal]:
    """One write transaction that leaves its events behind, or nothing at all."""
    with database.write() as connection:
        opened = Journal(connection, actor)
        yield opened
        opened.write()


def read_head(connection: Connection) -> Head:
    """The end of the chain as the catalog has recorded it."""
    row = connection.execute(select(EVENT_HEAD)).one()
    return Head(row.sequence, row.hash, row.at)

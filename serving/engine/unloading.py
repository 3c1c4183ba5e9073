"""Adapters on their way out: which of them can go now, and with which rows."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from adapters_store.errors import UnavailableError
from serving.engine.events import Event, Failed
from serving.engine.row import Row


class Unloading:
    """Adapters that wait for their rows, each until its deadline; a bank's tasks go with it."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}
        self._members: dict[str, frozenset[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._deadlines)

    def begin(self, digest: str, tasks: Collection[str], timeout_s: float) -> None:
        """Let ``digest`` and its ``tasks`` go when their rows are done.

        That is in ``timeout_s`` seconds at the latest. An adapter has no tasks but itself.
        """
        self._deadlines[digest] = time.monotonic() + timeout_s
        self._members[digest] = frozenset((digest, *tasks))

    def check(self, digest: str | None) -> None:
        """Raise UnavailableError where ``digest`` takes no new rows."""
        if any(digest in members for members in self._members.values()):
            raise UnavailableError(f"adapter {digest} is being unloaded")

    def take(self, rows: Collection[Row]) -> Iterator[tuple[frozenset[str], list[Row]]]:
        """What can go now, a bank's tasks together, each with ``rows`` that its deadline cuts."""
        now = time.monotonic()
        for digest, deadline in list(self._deadlines.items()):
            members = self._members[digest]
            left = [row for row in rows if row.needs(members)]
            if not left or now >= deadline:
                del self._deadlines[digest], self._members[digest]
                yield members, left


def cut_off(row: Row) -> Event:
    """The failure of a row whose adapter left before it was done."""
    message = f"adapter {row.request.adapter} was unloaded before the request was done"
    return Failed(row.request.id, UnavailableError.code, message)

"""Adapters on their way out: which of them can go now, and with which rows."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from adapters_store.errors import UnavailableError
from serving.engine.events import Event, Failed
from serving.engine.row import Row


class Unloading:
    """Digests that wait for their rows, each until its deadline."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._deadlines)

    def begin(self, digest: str, timeout_s: float) -> None:
        """Let ``digest`` go when its rows are done, at the latest in ``timeout_s`` seconds."""
        self._deadlines[digest] = time.monotonic() + timeout_s

    def check(self, digest: str | None) -> None:
        """Raise UnavailableError where ``digest`` takes no new rows."""
        if digest in self._deadlines:
            raise UnavailableError(f"adapter {digest} is being unloaded")

    def take(self, rows: Collection[Row]) -> Iterator[tuple[str, list[Row]]]:
        """Digests that can go now, each with those of ``rows`` that its deadline cuts off."""
        now = time.monotonic()
        for digest, deadline in list(self._deadlines.items()):
            left = [row for row in rows if row.request.adapter == digest]
            if not left or now >= deadline:
                del self._deadlines[digest]
                yield digest, left


def cut_off(row: Row) -> Event:
    """The failure of a row whose adapter left before it was done."""
    message = f"adapter {row.request.adapter} was unloaded before the request was done"
    return Failed(row.request.id, UnavailableError.code, message)

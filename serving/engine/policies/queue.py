"""The waiting rows of one tenant: by priority, then by arrival, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Iterator

from serving.engine.row import Row


class RowQueue:
    """Rows by priority, highest first, and in order of arrival within one.

    Arrival is the order of :meth:`add`, except that a row that has waited before keeps its place.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._rows: dict[int, dict[str, Row]] = {}

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def add(self, row: Row) -> None:
        """Append a row to those of its priority, or put it before all that arrived later."""
        rows = self._rows.setdefault(row.request.priority, {})
        newest = next(reversed(rows.values()), None)
        rows[row.request.id] = row
        if newest is not None and row.arrived_at < newest.arrived_at:
            ordered = sorted(rows.values(), key=lambda one: one.arrived_at)
            self._rows[row.request.priority] = {one.request.id: one for one in ordered}

    def remove(self, row: Row) -> None:
        """Take a row out."""
        rows = self._rows[row.request.priority]
        del rows[row.request.id]
        if not rows:
            del self._rows[row.request.priority]

    def order(self, now: float) -> Iterator[Row]:
        """Rows that waited too long, oldest first, then the others by priority."""
        overdue = {row.request.id: row for row in self._overdue(now)}
        yield from overdue.values()
        for priority in sorted(self._rows, reverse=True):
            for row in self._rows[priority].values():
                if row.request.id not in overdue:
                    yield row

    def _overdue(self, now: float) -> list[Row]:
        if len(self._rows) < 2:
            return []
        found = []
        for rows in self._rows.values():
            for row in rows.values():
                if now - row.arrived_at <= self._max_wait_s:
                    break
                found.append(row)
        return sorted(found, key=lambda row: row.arrived_at)

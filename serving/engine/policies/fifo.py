"""First come, first served, whoever asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from serving.engine.policies.queue import RowQueue
from serving.engine.row import Row


class FifoPolicy:
    """By priority and arrival alone; tenants' shares are not looked at."""

    def __init__(self, weights: Mapping[str, float], max_wait_s: float, burst_tokens: int) -> None:
        self._rows = RowQueue(max_wait_s)

    def add(self, row: Row) -> None:
        """A row begins to wait."""
        self._rows.add(row)

    def remove(self, row: Row) -> None:
        """A row stops waiting."""
        self._rows.remove(row)

    def order(self, now: float) -> Iterator[Row]:
        """Every waiting row, by priority and arrival."""
        return self._rows.order(now)

    def charge_input(self, row: Row) -> None:
        """Nothing is counted."""

    def charge_output(self, rows: Iterable[Row]) -> None:
        """Nothing is counted."""

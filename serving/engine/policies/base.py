"""What the scheduler asks of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from serving.engine.row import Row


class Policy(Protocol):
    """Holds the waiting rows and says in which order they should be tried.

    The scheduler decides whether a row can run now; the policy decides who is asked first. Times
    are ``time.monotonic`` seconds.
    """

    def add(self, row: Row) -> None:
        """A row begins to wait."""

    def remove(self, row: Row) -> None:
        """A row stops waiting, for whatever reason."""

    def order(self, now: float) -> Iterator[Row]:
        """Every waiting row, the most deserving first.

        A row may be charged for between two items; what follows takes that into account. No row
        is added or removed meanwhile.
        """

    def charge_input(self, row: Row) -> None:
        """The row's input runs in this step."""

    def charge_output(self, rows: Iterable[Row]) -> None:
        """Each of ``rows`` decoded one token."""

"""Whether the keys and values of new rows fit beside those of the running ones."""

from __future__ import annotations

from collections.abc import Callable

from adapters_store.errors import UsageError
from serving.engine.batch import DecodeBatch
from serving.engine.kv_budget import KvBudget
from serving.engine.origin import Origin
from serving.engine.row import Row


class Room:
    """Bytes that rows take and will take of one engine's budget.

    ``input_bytes`` says how many more a row takes while its input is read, ``None`` where that is
    not over several steps.
    """

    def __init__(
        self, batch: DecodeBatch, budget: KvBudget, input_bytes: Callable[[Row], int | None]
    ) -> None:
        self._batch, self._budget, self._input_bytes = batch, budget, input_bytes

    def excess(self, row: Row) -> str | None:
        """How far keys and values of a row may outgrow the budget alone; None where they fit."""
        if row.request.kind != "generate":
            return None
        needed, limit = self._batch.largest_bytes(row), self._budget.max_bytes
        if needed <= limit:
            return None
        return f"the request's keys and values may take {needed} bytes; max_kv_bytes is {limit}"

    def check(self, row: Row) -> None:
        """Raise UsageError where keys and values of a new row may outgrow the budget alone."""
        problem = self.excess(row)
        if problem is not None:
            raise UsageError(problem, hint="Ask for fewer tokens, or raise max_kv_bytes.")

    def taker(self) -> Callable[[Row], bool]:
        """A function that takes room for one row after the other; False where there is none.

        A row that outgrows the whole budget is let through, to be refused rather than waited for.
        """
        free: int | None = None
        read: set[Origin] = set()

        def take(row: Row) -> bool:
            nonlocal free
            if row.request.kind != "generate" or self.excess(row) is not None:
                return True
            if free is None:
                free = self._budget.free_bytes - self._batch.growth_bytes()
            needed = self._batch.entry_bytes(row)
            own = self._input_bytes(row)
            is_shared = not row.reads_own and row.origin in read
            if own is not None and not is_shared:
                needed += own
            if needed > free:
                return False
            free -= needed
            if own is not None:
                read.add(row.origin)
            return True

        return take

"""The input tokens of one step."""

from __future__ import annotations

from collections.abc import Callable

from serving.engine.origin import Origin
from serving.engine.row import Row


class StepTokens:
    """Counts the inputs that are read in a step, within ``max_tokens``.

    An input that others have read, or read in the same step, costs nothing: ``is_read`` says of
    which rows that is true. Where it is None nothing is read over several steps, and an input
    beyond the limit has a step of its own; else it may begin while no other is under way, of which
    ``num_unread`` tokens are left. Up to half of the step belongs to those.
    """

    def __init__(
        self,
        max_tokens: int,
        num_unread: int = 0,
        is_read: Callable[[Row], bool] | None = None,
    ) -> None:
        self._max_tokens = max_tokens
        self._is_read = is_read
        self.is_reading = num_unread > 0
        self._num_taken = min(num_unread, max_tokens // 2)
        self._inputs: set[Origin] = set()

    def cost(self, row: Row) -> int:
        """Tokens that are read for the row in this step."""
        if not row.reads_own and (row.origin in self._inputs or self._known(row)):
            return 0
        return row.num_read

    def fits(self, cost: int) -> bool:
        """Whether an input of that many tokens can be read, or begun, in this step."""
        if cost > self._max_tokens and self._is_read is not None:
            return not self.is_reading
        return not cost or not self._num_taken or self._num_taken + cost <= self._max_tokens

    def take(self, row: Row, cost: int) -> None:
        """Count a row's input."""
        if not cost:
            return
        if cost > self._max_tokens and self._is_read is not None:
            self.is_reading = True
            cost = self._max_tokens // 2
        self._num_taken += cost
        if not row.reads_own:
            self._inputs.add(row.origin)

    def _known(self, row: Row) -> bool:
        return self._is_read is not None and self._is_read(row)

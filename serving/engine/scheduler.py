"""Who runs next: first come, first served, but nobody waits behind somebody else's adapter.

A bounded queue. The first ``max_lookahead`` waiting rows lease their adapters, which loads them
in the background; a row whose adapter is not ready yet is skipped, not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable

from adapters_store.errors import OverloadedError
from serving.engine.config import EngineConfig
from serving.engine.events import Event, Failed
from serving.engine.row import Row
from serving.residency.cache import AdapterCache, code_of


class Scheduler:
    """The waiting rows of one engine, oldest first."""

    def __init__(self, cache: AdapterCache, config: EngineConfig) -> None:
        self._cache = cache
        self._config = config
        self._waiting: dict[str, Row] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def add(self, row: Row) -> None:
        """Queue a row; raises :class:`OverloadedError` when the queue is full."""
        if len(self._waiting) >= self._config.max_waiting:
            raise OverloadedError(
                f"{len(self._waiting)} requests are waiting; the limit is "
                f"{self._config.max_waiting}"
            )
        self._waiting[row.request.id] = row

    def remove(self, request_id: str) -> Row | None:
        """Take a waiting row out and end its lease; None if it is not waiting."""
        row = self._waiting.pop(request_id, None)
        if row is not None:
            self.release(row)
        return row

    def release(self, row: Row) -> None:
        """End the row's lease of its adapter, if it holds one."""
        if row.entry is not None:
            self._cache.release(row.entry)
            row.entry = None

    def admit(self, num_free_rows: int) -> tuple[list[Row], list[Event]]:
        """Rows to encode in this step, and the failures of rows whose adapter cannot be loaded.

        Rows that generate take a free row of the decode batch each. The step's input tokens stay
        within ``max_step_tokens``, but the first row always fits.
        """
        self._cache.poll()
        failures = [self._failed(row) for row in self._lease_ahead()]
        admitted: list[Row] = []
        num_tokens = 0
        for row in self._waiting.values():
            if row.request.adapter is not None and not _is_ready(row):
                continue
            is_full = num_tokens + row.num_input > self._config.max_step_tokens
            if admitted and is_full:
                break
            if row.request.kind == "generate":
                if num_free_rows == 0:
                    continue
                num_free_rows -= 1
            admitted.append(row)
            num_tokens += row.num_input
        for row in admitted:
            del self._waiting[row.request.id]
        return admitted, failures

    @property
    def is_stalled(self) -> bool:
        """True while every waiting row needs an adapter that is still being loaded."""
        for number, row in enumerate(self._waiting.values()):
            is_new = row.entry is None and number < self._config.max_lookahead
            if row.request.adapter is None or is_new or _is_settled(row):
                return False
        return True

    def _lease_ahead(self) -> Iterable[Row]:
        failed = []
        for number, row in enumerate(self._waiting.values()):
            if number >= self._config.max_lookahead:
                break
            if row.request.adapter is None:
                continue
            if row.entry is None:
                row.entry = self._cache.lease(row.request.adapter)
            if row.entry.stage == "failed":
                failed.append(row)
        return failed

    def _failed(self, row: Row) -> Event:
        assert row.entry is not None
        code, message = code_of(row.entry.error)
        self.remove(row.request.id)
        return Failed(row.request.id, code, message)


def _is_settled(row: Row) -> bool:
    return row.entry is not None and row.entry.stage in ("ready", "failed")


def _is_ready(row: Row) -> bool:
    return row.entry is not None and row.entry.stage == "ready"

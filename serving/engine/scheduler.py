"""Who runs next: the policy says who is asked first, and nobody waits behind a cold adapter.

A bounded queue. The first ``max_lookahead`` waiting rows lease their adapters, which loads them
in the background; a row that cannot run yet is skipped, not waited for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Set
from itertools import islice
from typing import Literal, get_args

from adapters_store.errors import OverloadedError
from serving.engine.config import EngineConfig
from serving.engine.events import Event, Failed
from serving.engine.policies import build_policy
from serving.engine.row import Row
from serving.engine.step_tokens import StepTokens
from serving.residency.cache import AdapterCache, code_of

Lack = Literal["place", "tokens", "room"]
"""What a row waits for: a place among adapters or rows, input tokens, keys and values."""

_SHARE_OF_FREE = 3
_MAX_PASSED = 16


def _has_any_room(row: Row) -> bool:
    return True


class Scheduler:
    """The waiting rows of one engine."""

    def __init__(self, cache: AdapterCache, config: EngineConfig) -> None:
        self._cache = cache
        self._config = config
        self._policy = build_policy(
            config.policy, config.tenant_weights, config.max_wait_s, config.burst_tokens
        )
        self._waiting: dict[str, Row] = {}
        self._by_tenant: Counter[str] = Counter()
        self._passed: dict[str, Lack] = {}
        self._barriers: dict[Lack, float] = {}
        self._num_answers = 0
        self._num_searches = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def rows(self) -> Collection[Row]:
        """Every waiting row, in no order that matters."""
        return self._waiting.values()

    def add(self, row: Row) -> None:
        """Queue a row; raises :class:`OverloadedError` when the queue is full for its tenant.

        A tenant may hold three times as many places as are still free (dynamic thresholds,
        Choudhury and Hahne 1998): one that floods the queue leaves room for the others.
        """
        limit, num_waiting = self._config.max_waiting, len(self._waiting)
        if num_waiting >= limit:
            raise OverloadedError(f"{num_waiting} requests are waiting; the limit is {limit}")
        tenant = row.request.tenant
        own = self._by_tenant[tenant]
        if own >= _SHARE_OF_FREE * (limit - num_waiting):
            raise OverloadedError(
                f"{own} requests of tenant {tenant!r} are waiting, and {limit - num_waiting} of "
                f"{limit} places are free; a tenant may hold {_SHARE_OF_FREE} times as many as "
                "are free"
            )
        row.arrived_at = time.monotonic()
        self._put(row)

    def requeue(self, row: Row) -> None:
        """Queue a row that was running, at its old place; it is never refused."""
        self._put(row)

    def remove(self, request_id: str) -> Row | None:
        """Take a waiting row out and end its lease; None if it is not waiting."""
        row = self._waiting.get(request_id)
        if row is not None:
            self._take(row)
            self.release(row)
        return row

    def release(self, row: Row) -> None:
        """End the row's lease of its adapter, if it holds one."""
        if row.entry is not None:
            self._cache.release(row.entry)
            row.entry = None

    def charge(self, rows: Collection[Row]) -> None:
        """Tell the policy that each of ``rows`` gets a token that it has not had before."""
        self._policy.charge_output(rows)

    def admit(
        self,
        num_free_rows: int,
        running: Collection[Row],
        tokens: StepTokens,
        has_room: Callable[[Row], bool] = _has_any_room,
    ) -> tuple[list[Row], list[Event]]:
        """Rows to read in this step, and the failures of rows whose adapter cannot be loaded.

        A request that generates takes a free row of the batch for each of its beams. ``tokens``
        bounds the step's input, ``has_room`` takes room for a row's keys and values. The step's
        distinct adapters, those of ``running`` included, stay within ``max_step_adapters``. Rows
        that lack any of this are passed by others, but once one has waited for ``max_wait_s``,
        those that came after it wait until it has it.
        """
        self._cache.poll()
        now = time.monotonic()
        failures = [self._failed(row) for row in self._lease_ahead(now)]
        can_any_run = num_free_rows > 0 or self._num_answers > 0
        admitted: list[Row] = []
        if can_any_run:
            admitted = self._chosen(num_free_rows, running, now, tokens, has_room)
        for row in admitted:
            self._take(row)
        return admitted, failures

    @property
    def is_stalled(self) -> bool:
        """True while every waiting row needs an adapter that is still being loaded."""
        for number, row in enumerate(self._policy.order(time.monotonic())):
            is_new = row.entry is None and number < self._config.max_lookahead
            if row.request.adapter is None or is_new or _is_settled(row):
                return False
        return True

    def _chosen(
        self,
        num_free_rows: int,
        running: Collection[Row],
        now: float,
        tokens: StepTokens,
        has_room: Callable[[Row], bool],
    ) -> list[Row]:
        adapters = {row.request.adapter for row in running} - {None}
        chosen: list[Row] = []
        num_passed = 0
        self._barriers = self._barriers_of(adapters, num_free_rows, now)
        for row in self._policy.order(now):
            if not num_free_rows and not self._num_answers:
                break
            adapter, writes = row.request.adapter, row.request.kind == "generate"
            if not _is_ready(row) or self._is_barred(row) or row.width > num_free_rows:
                continue
            is_new = adapter is not None and adapter not in adapters
            if is_new and len(adapters) >= self._config.max_step_adapters:
                continue
            if writes and num_passed == _MAX_PASSED:
                continue
            cost = tokens.cost(row)
            if not tokens.fits(cost):
                if not tokens.is_reading:
                    break
                self._pass_by(row, "tokens", now)
                num_passed += writes
                continue
            if writes and not has_room(row):
                self._pass_by(row, "room", now)
                num_passed += 1
                continue
            chosen.append(row)
            if not row.is_paid:
                self._policy.charge_input(row)
                row.is_paid = True
            tokens.take(row, cost)
            num_free_rows -= row.width
            if is_new:
                adapters.add(adapter)
        return chosen

    def _pass_by(self, row: Row, lack: Lack, now: float) -> None:
        """Note what a row lacks; one that may not be passed any longer bars those behind it."""
        self._passed[row.request.id] = lack
        if self._is_due(row, now):
            self._barriers[lack] = min(self._barriers[lack], row.arrived_at)

    def _is_due(self, row: Row, now: float) -> bool:
        """Whether others may no longer pass the row: it has waited too long, or ran before."""
        return bool(row.tokens) or now - row.arrived_at > self._config.max_wait_s

    def _is_barred(self, row: Row) -> bool:
        barriers = self._barriers
        if row.arrived_at > min(barriers["place"], barriers["tokens"]):
            return True
        return row.request.kind == "generate" and row.arrived_at > barriers["room"]

    def _barriers_of(
        self, adapters: Set[str | None], num_free_rows: int, now: float
    ) -> dict[Lack, float]:
        """Rows that arrived later than these wait, so that a due one gets what it lacks."""
        barriers: dict[Lack, float] = dict.fromkeys(get_args(Lack), float("inf"))
        for name, lack in self._passed.items():
            row = self._waiting[name]
            if self._is_due(row, now):
                barriers[lack] = min(barriers[lack], row.arrived_at)
        is_full = len(adapters) >= self._config.max_step_adapters
        if not is_full and not self._num_searches:
            return barriers
        for row in self._waiting.values():
            if now - row.arrived_at <= self._config.max_wait_s or not _is_ready(row):
                continue
            needs_place = is_full and row.request.adapter not in (None, *adapters)
            if needs_place or row.width > max(1, num_free_rows):
                barriers["place"] = min(barriers["place"], row.arrived_at)
        return barriers

    def _lease_ahead(self, now: float) -> list[Row]:
        """Lease the adapters of the next rows; returns those whose adapter cannot be loaded."""
        failed = []
        for row in islice(self._policy.order(now), self._config.max_lookahead):
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

    def _put(self, row: Row) -> None:
        self._waiting[row.request.id] = row
        self._by_tenant[row.request.tenant] += 1
        self._num_answers += row.request.kind != "generate"
        self._num_searches += row.width > 1
        self._policy.add(row)

    def _take(self, row: Row) -> None:
        del self._waiting[row.request.id]
        self._passed.pop(row.request.id, None)
        tenant = row.request.tenant
        self._by_tenant[tenant] -= 1
        if not self._by_tenant[tenant]:
            del self._by_tenant[tenant]
        self._num_answers -= row.request.kind != "generate"
        self._num_searches -= row.width > 1
        self._policy.remove(row)


def _is_settled(row: Row) -> bool:
    return row.entry is not None and row.entry.stage in ("ready", "failed")


def _is_ready(row: Row) -> bool:
    if row.request.adapter is None:
        return True
    return row.entry is not None and row.entry.stage == "ready"

"""Fair shares of the engine's work: a virtual token counter per tenant.

Whoever has had the least work, weighted by its share, is asked first (Sheng et al., Fairness in
Serving Large Language Models, 2024). A tenant that comes back after a pause starts behind the least
served one that waits by what it saved up, of a bounded amount: one that stays below its share has
its bursts served at once, as if no other tenant had all the rest.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from serving.engine.policies.queue import RowQueue
from serving.engine.row import Row

INPUT_COST, OUTPUT_COST = 1.0, 2.0
_MAX_COUNTERS = 4096


class FairPolicy:
    """``weights`` are tenants' shares; a tenant of share 2 gets twice the work of one of 1.

    An input token costs 1, an output token 2; ``burst_tokens`` is the most that a pause saves up,
    in the same measure, times the tenant's share. Priorities order the rows of one tenant: they
    never take anything from another.
    """

    def __init__(self, weights: Mapping[str, float], max_wait_s: float, burst_tokens: int) -> None:
        self._weights = dict(weights)
        self._max_wait_s = max_wait_s
        self._burst = float(burst_tokens)
        self._queues: dict[str, RowQueue] = {}
        self._served: dict[str, float] = {}
        self._floor = 0.0

    def add(self, row: Row) -> None:
        """A row begins to wait; the first one of a tenant lifts its counter near the others'."""
        tenant = row.request.tenant
        if tenant not in self._queues:
            self._floor = self._least_served()
            self._served[tenant] = max(self._served.get(tenant, 0.0), self._floor - self._burst)
            self._queues[tenant] = RowQueue(self._max_wait_s)
            if len(self._served) > _MAX_COUNTERS:
                self._forget()
        self._queues[tenant].add(row)

    def remove(self, row: Row) -> None:
        """A row stops waiting."""
        tenant = row.request.tenant
        queue = self._queues[tenant]
        queue.remove(row)
        if not len(queue):
            self._floor = self._least_served()
            del self._queues[tenant]

    def order(self, now: float) -> Iterator[Row]:
        """Tenants' next rows, always of the tenant with the lowest counter."""
        if len(self._queues) == 1:
            yield from next(iter(self._queues.values())).order(now)
            return
        waiting = {tenant: queue.order(now) for tenant, queue in self._queues.items()}
        heap = [(self._served[tenant], tenant) for tenant in waiting]
        heapq.heapify(heap)
        while heap:
            counted, tenant = heap[0]
            if self._served[tenant] != counted:
                heapq.heapreplace(heap, (self._served[tenant], tenant))
                continue
            row = next(waiting[tenant], None)
            if row is None:
                heapq.heappop(heap)
            else:
                yield row

    def charge_input(self, row: Row) -> None:
        """Count the row's input tokens for its tenant."""
        self._charge(row.request.tenant, INPUT_COST * row.num_input)

    def charge_output(self, rows: Iterable[Row]) -> None:
        """Count one output token a row for its tenant."""
        for row in rows:
            self._charge(row.request.tenant, OUTPUT_COST)

    def _charge(self, tenant: str, cost: float) -> None:
        served = self._served.get(tenant, self._floor - self._burst)
        self._served[tenant] = served + cost / self._weights.get(tenant, 1.0)

    def _least_served(self) -> float:
        """The lowest counter of those who wait; what it last was where nobody waits."""
        return min((self._served[tenant] for tenant in self._queues), default=self._floor)

    def _forget(self) -> None:
        """Drop the counters that a return would lift anyway."""
        kept = self._queues
        self._served = {
            tenant: served
            for tenant, served in self._served.items()
            if tenant in kept or served > self._floor - self._burst
        }

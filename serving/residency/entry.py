"""One artefact on its way into memory, or there; and what the cache counts."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from serving.primitives.prepared import Prepared
from serving.residency.item import Item

Stage = Literal["queued", "reading", "needs_bank", "preparing", "ready", "failed"]


@dataclass(slots=True)
class CacheStats:
    """Cumulative counters, and the present size of both tiers.

    Lookups are ``num_hits`` (ready), ``num_joins`` (on its way), ``num_host_hits`` (only to be
    prepared) or ``num_misses`` (to be read).
    """

    num_hits: int = 0
    num_joins: int = 0
    num_host_hits: int = 0
    num_misses: int = 0
    num_loads: int = 0
    num_failures: int = 0
    num_evictions: int = 0
    num_resident: int = 0
    resident_bytes: int = 0
    num_host: int = 0
    host_bytes: int = 0


@dataclass(slots=True, eq=False)
class Entry:
    """``num_leases`` pins it: a leased entry is never evicted."""

    digest: str
    stage: Stage = "queued"
    num_leases: int = 0
    prepared: Prepared | None = None
    error: BaseException | None = None
    num_bytes: int = 0
    item: Item | None = None
    reading: Future[Item] | None = None
    preparing: Future[Prepared] | None = None
    bank: Entry | None = field(default=None, repr=False)

    @property
    def bank_digest(self) -> str | None:
        """The bank that a routing is composed from; None before it is known, and without one."""
        return None if self.bank is None else self.bank.digest

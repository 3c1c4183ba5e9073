"""The adapter cache: single-flight background loads, pins, and two tiers with byte budgets.

An artefact goes from the store to the host tier (as it was read) and from there to the device
tier (prepared for the backbone; a routing's factors composed). All state belongs to the thread
that steps the engine; loader threads run pure functions and hand results over as futures, so
nothing here is locked. A row leases an adapter when it is queued and releases it when its factors
have been copied into the batch, so an adapter that somebody waits for is never evicted. A load
starts only while the leased bytes leave room; the budget may be passed by the one artefact that
is being read.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from adapters_store.errors import ArtefactTooLargeError, IncompatibleError, PatchbayError
from serving.primitives.mixture import Bank
from serving.primitives.prepared import Prepared, Target
from serving.residency.entry import CacheStats, Entry
from serving.residency.host import HostTier
from serving.residency.item import Item
from serving.residency.loader import ArtefactLoader
from serving.residency.prepare import load, prepare
from serving.residency.victims import Victims

_NUM_READERS = 4


class AdapterCache:
    """Leases prepared adapters by artefact digest."""

    def __init__(
        self,
        loader: ArtefactLoader,
        target: Target,
        fingerprint: str,
        max_bytes: int,
        max_host_bytes: int = 2**30,
    ) -> None:
        self._loader = loader
        self._target = target
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._host = HostTier(max_host_bytes)
        self._pins = target.device.type == "cuda"
        self._entries: dict[str, Entry] = {}
        self._pending: dict[str, Entry] = {}
        self._victims = Victims()
        self._dropped: set[str] = set()
        self._preloads: dict[str, Future[Item]] = {}
        self._readers = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="adapter-reader")
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="adapter-preparer")
        self._stats = CacheStats()
        self._used = 0

    def lease(self, digest: str) -> Entry:
        """Pin ``digest`` and start bringing it in unless it is here or on its way."""
        self._dropped.discard(digest)
        entry = self._entries.get(digest)
        if entry is None:
            if digest in self._host:
                self._stats.num_host_hits += 1
            else:
                self._stats.num_misses += 1
            entry = self._begin(digest)
        elif entry.stage == "ready":
            self._stats.num_hits += 1
        else:
            self._stats.num_joins += 1
        self._pin(entry)
        return entry

    def release(self, entry: Entry) -> None:
        """End one lease; an entry without leases may be evicted."""
        assert entry.num_leases > 0, entry.digest
        entry.num_leases -= 1
        if entry.num_leases == 0:
            if entry.stage == "queued" or entry.digest in self._dropped:
                self._let_go(entry)
            elif entry.stage == "ready":
                self._victims.offer(entry.digest, entry.num_bytes)
        self._evict()

    def preload(self, digest: str) -> None:
        """Read ``digest`` into the host tier in the background, without preparing it."""
        if digest not in self._host and digest not in self._preloads:
            reading = self._read(digest)
            self._preloads[digest] = reading
            self._stats.num_loads += 1

    def tasks_of(self, bank: str) -> set[str]:
        """The routings over ``bank`` that either tier holds; empty for what is no bank."""
        ready = {one.digest for one in self._entries.values() if one.bank_digest == bank}
        return ready | self._host.tasks_of(bank)

    def drop(self, digest: str) -> None:
        """Free every byte of ``digest``: now, or when its last lease ends.

        A bank stays while a task that was composed from it does.
        """
        self._host.drop(digest)
        self._preloads.pop(digest, None)
        entry = self._entries.get(digest)
        if entry is None:
            return
        if entry.num_leases or entry.stage not in ("queued", "ready"):
            self._dropped.add(digest)
        else:
            self._let_go(entry)

    def poll(self) -> None:
        """Take over what the loader threads finished, and start what there is room for."""
        for entry in list(self._pending.values()):
            self._advance(entry)
        for digest, reading in list(self._preloads.items()):
            if not reading.done():
                break
            del self._preloads[digest]
            if reading.exception() is None:
                self._host.put(digest, reading.result())
            else:
                self._stats.num_failures += 1

    def wait(self, timeout_s: float) -> None:
        """Block until a background load makes progress, at most ``timeout_s`` seconds."""
        futures: list[Future[Any]] = []
        for entry in self._pending.values():
            futures.extend(f for f in (entry.reading, entry.preparing) if f is not None)
        if futures:
            wait(futures, timeout=timeout_s, return_when="FIRST_COMPLETED")

    @property
    def has_pending(self) -> bool:
        """True while something is being loaded."""
        return bool(self._pending)

    def digests(self) -> set[str]:
        """Every artefact that is prepared, or on its way there."""
        return set(self._entries)

    def stats(self) -> CacheStats:
        """A snapshot of the counters."""
        return replace(
            self._stats,
            num_resident=len(self._entries) - len(self._pending),
            resident_bytes=self._used,
            num_host=len(self._host),
            host_bytes=self._host.used_bytes,
        )

    def close(self) -> None:
        """Stop the loader threads after the artefacts they are at."""
        for pool in (self._readers, self._preparer):
            pool.shutdown(wait=True, cancel_futures=True)

    def _pin(self, entry: Entry) -> None:
        entry.num_leases += 1
        self._victims.withdraw(entry.digest)

    def _begin(self, digest: str) -> Entry:
        entry = Entry(digest)
        self._entries[digest] = entry
        self._pending[digest] = entry
        self._start(entry)
        return entry

    def _start(self, entry: Entry) -> None:
        self._evict(room=1)
        if self._used >= self._max_bytes:
            return
        item = self._host.get(entry.digest)
        if item is not None:
            self._after_item(entry, item)
            return
        entry.stage = "reading"
        entry.reading = self._read(entry.digest)
        self._stats.num_loads += 1

    def _read(self, digest: str) -> Future[Item]:
        return self._readers.submit(load, self._loader, digest, self._fingerprint, pins=self._pins)

    def _advance(self, entry: Entry) -> None:
        if entry.stage == "queued":
            self._start(entry)
        if entry.stage == "reading" and entry.reading is not None and entry.reading.done():
            self._after_read(entry, entry.reading)
        if entry.stage == "needs_bank":
            self._after_bank(entry)
        if entry.stage == "preparing" and entry.preparing is not None and entry.preparing.done():
            self._after_prepare(entry, entry.preparing)

    def _after_read(self, entry: Entry, reading: Future[Item]) -> None:
        error = reading.exception()
        entry.reading = None
        if error is not None:
            self._fail(entry, error)
            return
        item = reading.result()
        if entry.digest not in self._dropped:
            self._host.put(entry.digest, item)
        self._after_item(entry, item)

    def _after_item(self, entry: Entry, item: Item) -> None:
        entry.item = item
        if item.bank is None:
            self._prepare(entry, None)
            return
        entry.stage = "needs_bank"
        bank = self._entries.get(item.bank)
        entry.bank = bank if bank is not None else self._begin(item.bank)
        if entry.bank.stage == "queued":
            self._start(entry.bank)
        self._pin(entry.bank)

    def _after_bank(self, entry: Entry) -> None:
        assert entry.bank is not None
        if entry.bank.stage == "failed":
            self._fail(entry, entry.bank.error)
        elif entry.bank.stage == "ready":
            assert entry.bank.prepared is not None
            bank = entry.bank.prepared.bank
            if bank is None:
                digest = entry.bank.digest
                self._fail(entry, IncompatibleError(f"artefact {digest} is not a bank"))
            else:
                self._prepare(entry, bank)

    def _prepare(self, entry: Entry, bank: Bank | None) -> None:
        assert entry.item is not None
        entry.stage = "preparing"
        entry.preparing = self._preparer.submit(prepare, entry.item, self._target, bank)

    def _after_prepare(self, entry: Entry, preparing: Future[Prepared]) -> None:
        error = preparing.exception()
        entry.preparing = entry.item = None
        if error is not None:
            self._fail(entry, error)
            return
        prepared = preparing.result()
        if prepared.num_bytes > self._max_bytes:
            message = (
                f"artefact {entry.digest} needs {prepared.num_bytes} bytes in memory; "
                f"max_adapter_bytes is {self._max_bytes}"
            )
            self._fail(entry, ArtefactTooLargeError(message, hint="Raise max_adapter_bytes."))
            return
        entry.prepared, entry.num_bytes, entry.stage = prepared, prepared.num_bytes, "ready"
        del self._pending[entry.digest]
        self._used += entry.num_bytes
        if entry.num_leases == 0:
            if entry.digest in self._dropped:
                self._let_go(entry)
            else:
                self._victims.offer(entry.digest, entry.num_bytes)
        self._evict()

    def _fail(self, entry: Entry, error: BaseException | None) -> None:
        entry.stage, entry.error = "failed", error
        entry.item = None
        self._stats.num_failures += 1
        self._host.drop(entry.digest)
        self._forget(entry)

    def _let_go(self, entry: Entry) -> None:
        """Forget an entry that nobody leases, and give its bytes back."""
        if self._entries.get(entry.digest) is not entry:
            return
        self._victims.withdraw(entry.digest)
        self._used -= entry.num_bytes
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.digest]
        self._pending.pop(entry.digest, None)
        self._dropped.discard(entry.digest)
        bank, entry.bank = entry.bank, None
        if bank is not None:
            self.release(bank)

    def _evict(self, room: int = 0) -> None:
        """Drop unleased entries until ``room`` bytes are free or none is left."""
        while self._used + room > self._max_bytes:
            victim = self._victims.pop()
            if victim is None:
                return
            entry = self._entries[victim]
            self._stats.num_evictions += 1
            self._used -= entry.num_bytes
            self._forget(entry)


def code_of(error: BaseException | None) -> tuple[str, str]:
    """Stable code and message of a failed load."""
    if isinstance(error, PatchbayError):
        return error.code, error.message
    return PatchbayError.code, f"{type(error).__name__}: {error}"

"""The adapter cache: single-flight background loads, pins, and LRU eviction by bytes.

All state belongs to the thread that steps the engine; the loader thread runs pure functions and
hands results over as futures, so nothing here is locked. A row leases an adapter when it is
queued and releases it when its factors have been copied into the batch, so an adapter that
somebody waits for is never evicted. A load starts only while the leased bytes leave room; the
budget may be passed by the one artefact that is being read.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from adapters_store.errors import ArtefactTooLargeError, IncompatibleError, PatchbayError
from serving.primitives.mixture import Bank
from serving.primitives.prepared import Prepared, Target
from serving.residency.loader import ArtefactLoader
from serving.residency.prepare import Loaded, load, prepare

Stage = Literal["queued", "reading", "needs_bank", "preparing", "ready", "failed"]


@dataclass(slots=True)
class CacheStats:
    """Cumulative counters, and the present size."""

    num_hits: int = 0
    num_joins: int = 0
    num_misses: int = 0
    num_loads: int = 0
    num_failures: int = 0
    num_evictions: int = 0
    num_resident: int = 0
    resident_bytes: int = 0


@dataclass(slots=True)
class Entry:
    """One artefact on its way into memory, or there. ``num_leases`` protects it."""

    digest: str
    stage: Stage = "queued"
    num_leases: int = 0
    prepared: Prepared | None = None
    error: BaseException | None = None
    num_bytes: int = 0
    reading: Future[Loaded] | None = None
    preparing: Future[Prepared] | None = None
    loaded: Loaded | None = None
    bank: Entry | None = field(default=None, repr=False)


class AdapterCache:
    """Leases prepared adapters by artefact digest."""

    def __init__(
        self, loader: ArtefactLoader, target: Target, fingerprint: str, max_bytes: int
    ) -> None:
        self._loader = loader
        self._target = target
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._pending: dict[str, Entry] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="adapter-loader")
        self._stats = CacheStats()
        self._used = 0

    def lease(self, digest: str) -> Entry:
        """Protect ``digest`` and start loading it unless it is here or on its way."""
        entry = self._entries.get(digest)
        if entry is None:
            self._stats.num_misses += 1
            entry = self._begin(digest)
        elif entry.stage == "ready":
            self._stats.num_hits += 1
        else:
            self._stats.num_joins += 1
        self._entries.move_to_end(digest)
        entry.num_leases += 1
        return entry

    def release(self, entry: Entry) -> None:
        """End one lease; an entry without leases may be evicted."""
        assert entry.num_leases > 0, entry.digest
        entry.num_leases -= 1
        if entry.num_leases == 0 and entry.stage == "queued":
            self._forget(entry)
        self._evict()

    def poll(self) -> None:
        """Take over what the loader thread finished, and start what there is room for."""
        for entry in list(self._pending.values()):
            self._advance(entry)

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
        """Every artefact that is here or on its way."""
        return set(self._entries)

    def stats(self) -> CacheStats:
        """A snapshot of the counters."""
        self._stats.num_resident = len(self._entries) - len(self._pending)
        self._stats.resident_bytes = self._used
        return CacheStats(
            **{name: getattr(self._stats, name) for name in CacheStats.__dataclass_fields__}
        )

    def close(self) -> None:
        """Stop the loader thread after the artefact it is reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)

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
        entry.stage = "reading"
        entry.reading = self._pool.submit(load, self._loader, entry.digest, self._fingerprint)
        self._stats.num_loads += 1

    def _advance(self, entry: Entry) -> None:
        if entry.stage == "queued":
            self._start(entry)
        if entry.stage == "reading" and entry.reading is not None and entry.reading.done():
            self._after_read(entry, entry.reading)
        if entry.stage == "needs_bank":
            self._after_bank(entry)
        if entry.stage == "preparing" and entry.preparing is not None and entry.preparing.done():
            self._after_prepare(entry, entry.preparing)

    def _after_read(self, entry: Entry, reading: Future[Loaded]) -> None:
        error = reading.exception()
        entry.reading = None
        if error is not None:
            self._fail(entry, error)
            return
        entry.loaded = reading.result()
        bank_digest = entry.loaded[0].bank
        if bank_digest is None:
            self._prepare(entry, None)
            return
        entry.stage = "needs_bank"
        bank = self._entries.get(bank_digest)
        entry.bank = bank if bank is not None else self._begin(bank_digest)
        if entry.bank.stage == "queued":
            self._start(entry.bank)
        entry.bank.num_leases += 1
        self._entries.move_to_end(bank_digest)

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
        assert entry.loaded is not None
        manifest, tensors = entry.loaded
        entry.stage = "preparing"
        entry.preparing = self._pool.submit(prepare, manifest, tensors, self._target, bank)

    def _after_prepare(self, entry: Entry, preparing: Future[Prepared]) -> None:
        error = preparing.exception()
        entry.preparing = entry.loaded = None
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
        self._evict()

    def _fail(self, entry: Entry, error: BaseException | None) -> None:
        entry.stage, entry.error = "failed", error
        entry.loaded = None
        self._stats.num_failures += 1
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.digest]
        self._pending.pop(entry.digest, None)
        self._unlease_bank(entry)

    def _unlease_bank(self, entry: Entry) -> None:
        if entry.bank is not None:
            entry.bank.num_leases -= 1
            entry.bank = None

    def _evict(self, room: int = 0) -> None:
        """Drop unleased entries, oldest first, until ``room`` bytes are free or none is left."""
        is_changed = True
        while is_changed and self._used + room > self._max_bytes:
            is_changed = False
            for entry in list(self._entries.values()):
                if self._used + room <= self._max_bytes:
                    break
                if entry.stage == "ready" and entry.num_leases == 0:
                    self._used -= entry.num_bytes
                    self._stats.num_evictions += 1
                    self._forget(entry)
                    is_changed = True


def code_of(error: BaseException | None) -> tuple[str, str]:
    """Stable code and message of a failed load."""
    if isinstance(error, PatchbayError):
        return error.code, error.message
    return PatchbayError.code, f"{type(error).__name__}: {error}"

"""One collection: versions are given up in the catalog first, then blobs are removed.

So a version that can be restored always has its blobs. Blobs are removed while the catalog's write
lock is held, with their need checked again under it; a publication whose blobs may have been met
by a collection looks after them under the same lock. Others get the lock every few seconds. Each
removal follows a statement, which fails where the server has ended a session that was silent for
too long and the lock is another's.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, TypeVar

from sqlalchemy import Connection

from adapters_store.blobs import BlobEntry, Blobs
from adapters_store.catalog import counters, reachability
from adapters_store.catalog.claims import Claim
from adapters_store.catalog.clock import now, shifted
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import journal
from adapters_store.catalog.reachability import Key
from adapters_store.ledger.collection import Collection, Kept, Purged, RemovedBlob
from adapters_store.ledger.events import Subject
from adapters_store.records import Version

CLAIM_TTL_S = 60.0
_BATCH_VERSIONS = 200
_BATCH_ENTRIES = 500
_RENEW_AFTER_S = 15.0
_MAX_HELD_S = 5.0

Item = TypeVar("Item")


class CollectionRun:
    """Plans or carries out one collection of a store; times are in seconds."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        restore_window_s: float,
        upload_age_s: float,
        actor: str,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._actor = actor
        self._at = now()
        self._deleted_before = shifted(self._at, -restore_window_s)
        self._put_before_s = time.time() - upload_age_s
        self._upload_age_s = upload_age_s
        self._reason = f"deleted more than {restore_window_s:g} s before"
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._claim = Claim("collection", owner, CLAIM_TTL_S)
        self._renew_at_s = time.monotonic() + _RENEW_AFTER_S

    def plan(self) -> Collection:
        """What would happen."""
        with self._database.read() as connection:
            keys = reachability.past_window(connection, self._deleted_before)
            doomed: dict[Key, Purged] = {}
            digests: set[str] = set()
            for batch in _batches(keys, _BATCH_VERSIONS):
                found = self._collectable(connection, batch)
                doomed |= {key: _as_purged(version) for key, version in found.items()}
                digests |= {version.digest for version in found.values()}
            ignored: set[str] = set()
            for some in _batches(sorted(digests), _BATCH_ENTRIES):
                ignored |= reachability.without_content(connection, some, doomed)
            kept = self._explained(connection, [key for key in keys if key not in doomed])
        removable = [
            blob for entries in self._old_entries() for blob in self._removable(entries, ignored)
        ]
        num_uploads = self._blobs.uploads(self._upload_age_s, remove=False)
        return self._report(True, list(doomed.values()), kept, removable, num_uploads)

    def carry_out(self) -> Collection:
        """Do it; what was done before a failure stays done and is correct."""
        with self._database.write() as connection:
            self._claim.take(connection)
            _count_start(connection)
        with self._database.read() as connection:
            keys = reachability.past_window(connection, self._deleted_before)
        purged: list[Purged] = []
        spared: list[Key] = []
        for batch in _batches(keys, _BATCH_VERSIONS):
            gone = self._purge(batch)
            purged += (_as_purged(version) for version in gone.values())
            spared += [key for key in batch if key not in gone]
        removed: list[RemovedBlob] = []
        for entries in self._old_entries():
            self._stay()
            waiting = deque(self._removable(entries, ()))
            while waiting:
                removed += self._remove(waiting)
        num_uploads = self._blobs.uploads(self._upload_age_s)
        with self._database.read() as connection:
            kept = self._explained(connection, spared)
        report = self._report(False, purged, kept, removed, num_uploads)
        with journal(self._database, self._actor) as change:
            self._claim.renew(change.connection)
            change.record(
                "gc.collected",
                Subject(),
                deleted_before=self._deleted_before,
                num_purged=len(purged),
                num_kept=len(kept),
                num_blobs=len(removed),
                num_uploads=num_uploads,
                bytes_freed=report.bytes_freed,
            )
            _count_end(change.connection)
            self._claim.end(change.connection)
        return report

    def _purge(self, keys: Sequence[Key]) -> dict[Key, Version]:
        with journal(self._database, self._actor) as change:
            connection = change.connection
            self._claim.renew(connection)
            gone = self._collectable(connection, keys)
            if gone:
                reachability.mark_purged(
                    connection, gone, at=change.at, actor=change.actor, reason=self._reason
                )
                digests = {version.digest for version in gone.values()}
                reachability.mark_collected(connection, digests, at=change.at)
            for version in gone.values():
                change.record("adapter_version.purged", version.subject, reason=self._reason)
        return gone

    def _collectable(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Version]:
        return reachability.collectable(
            connection, keys, deleted_before=self._deleted_before, at=now()
        )

    def _explained(self, connection: Connection, keys: Sequence[Key]) -> list[Kept]:
        kept = []
        for key in keys:
            version, why = reachability.explain(
                connection, key, deleted_before=self._deleted_before, at=self._at
            )
            if not version.is_deleted:
                why = ("restored meanwhile",)
            kept.append(Kept(version.reference, version.deleted_at or "", why))
        return kept

    def _old_entries(self) -> Iterator[list[BlobEntry]]:
        old = (one for one in self._blobs.entries() if one.modified_at_s < self._put_before_s)
        return _batches(old, _BATCH_ENTRIES)

    def _removable(self, entries: Sequence[BlobEntry], ignored: Iterable[str]) -> list[RemovedBlob]:
        """Those of the blobs that no artefact needs, ``ignored`` ones apart."""
        digests = [entry.digest for entry in entries]
        with self._database.read() as connection:
            needed = reachability.needed_blobs(connection, digests, ignored=set(ignored))
            known = reachability.known_blobs(connection, digests)
        return [
            RemovedBlob(entry.digest, entry.size_bytes, _why(entry.digest in known))
            for entry in entries
            if entry.digest not in needed
        ]

    def _remove(self, waiting: deque[RemovedBlob]) -> list[RemovedBlob]:
        """Take some of the waiting blobs and remove those that are not needed after all."""
        removed = []
        give_back_at_s = time.monotonic() + _MAX_HELD_S
        with self._database.write() as connection:
            needed = reachability.needed_blobs(connection, [blob.digest for blob in waiting])
            while waiting:
                blob = waiting.popleft()
                self._claim.renew(connection)
                if blob.digest not in needed and self._blobs.delete(
                    blob.digest, put_before_s=self._put_before_s
                ):
                    removed.append(blob)
                if time.monotonic() >= give_back_at_s:
                    break
        return removed

    def _stay(self) -> None:
        """Say now and then that this goes on, also while there is nothing to remove."""
        if time.monotonic() >= self._renew_at_s:
            with self._database.write() as connection:
                self._claim.renew(connection)
            self._renew_at_s = time.monotonic() + _RENEW_AFTER_S

    def _report(
        self,
        is_dry_run: bool,
        purged: Sequence[Purged],
        kept: Sequence[Kept],
        blobs: Sequence[RemovedBlob],
        num_uploads: int,
    ) -> Collection:
        return Collection(
            is_dry_run=is_dry_run,
            at=self._at,
            deleted_before=self._deleted_before,
            purged=tuple(purged),
            kept=tuple(kept),
            blobs=tuple(blobs),
            num_uploads=num_uploads,
        )


def collections_so_far(connection: Connection) -> int:
    """A number that is the same before and after only if no collection removed blobs between."""
    return counters.read(connection, counters.COLLECTIONS)


def may_have_lost_blobs(connection: Connection, since: int) -> bool:
    """True where a collection may have removed blobs since that number was read."""
    return since % 2 == 1 or collections_so_far(connection) != since


def _count_start(connection: Connection) -> None:
    """To the next odd number, also after a collection that did not come to its end."""
    so_far = collections_so_far(connection)
    counters.write(connection, counters.COLLECTIONS, so_far + 1 + so_far % 2)


def _count_end(connection: Connection) -> None:
    counters.write(connection, counters.COLLECTIONS, collections_so_far(connection) + 1)


def _as_purged(version: Version) -> Purged:
    return Purged(
        reference=version.reference,
        kind=version.kind,
        deleted_at=version.deleted_at or "",
        deleted_by=version.deleted_by or "",
        delete_reason=version.delete_reason or "",
    )


def _why(is_known: bool) -> Literal["purged", "orphan"]:
    return "purged" if is_known else "orphan"


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch

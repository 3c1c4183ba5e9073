"""Retention: how long deletions can be undone, and the collection of what nothing needs."""

from __future__ import annotations

from sqlalchemy import Connection

from adapters_store.blobs import Blobs
from adapters_store.catalog import counters
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import journal
from adapters_store.errors import ConflictError, UsageError
from adapters_store.ledger.collecting import CollectionRun
from adapters_store.ledger.collection import Collection
from adapters_store.ledger.events import Subject

DEFAULT_RESTORE_WINDOW_S = 30 * 86400
DEFAULT_UPLOAD_AGE_S = 86400.0
MAX_AGE_S = 100 * 365 * 86400.0


class Retention:
    """``store.retention`` and ``store.collect``.

    ``configured_s`` is the restore window of the store's configuration; it stands over the
    catalog's.
    """

    def __init__(self, database: Database, blobs: Blobs, configured_s: float | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._configured_s = configured_s

    def restore_window_s(self) -> float:
        """How many seconds a deleted version keeps its content at least; 30 days unless set."""
        if self._configured_s is not None:
            return self._configured_s
        with self._database.read() as connection:
            return _window(connection)

    def set_restore_window(self, seconds: int, *, actor: str = "local") -> None:
        """Set the catalog's restore window.

        Raises UsageError outside 0 to 100 years, ConflictError where the configuration names one.
        """
        _check_age(seconds, "restore_window_s")
        if self._configured_s is not None:
            raise ConflictError(
                f"the store's configuration sets a restore window of {self._configured_s:g} s",
                hint="Change restore_window_days in the store's store.yaml.",
            )
        with journal(self._database, actor) as change:
            previous = _window(change.connection)
            counters.write(change.connection, counters.RESTORE_WINDOW_S, int(seconds))
            change.record(
                "store.configured", Subject(), restore_window_s=int(seconds), previous=previous
            )

    def collect(
        self,
        *,
        dry_run: bool = False,
        restore_window_s: float | None = None,
        upload_age_s: float = DEFAULT_UPLOAD_AGE_S,
        actor: str = "local",
    ) -> Collection:
        """Give up what was deleted before the restore window and remove what nothing needs.

        ``restore_window_s`` stands in for the store's own. Blobs and unfinished uploads younger
        than ``upload_age_s`` stay: they may belong to a publication that has not ended. With
        ``dry_run`` the report says what would happen and nothing is changed. Raises UsageError
        for a negative time, ConflictError while another collection runs.
        """
        _check_age(upload_age_s, "upload_age_s")
        if restore_window_s is None:
            restore_window_s = self.restore_window_s()
        _check_age(restore_window_s, "restore_window_s")
        run = CollectionRun(self._database, self._blobs, restore_window_s, upload_age_s, actor)
        return run.plan() if dry_run else run.carry_out()


def _window(connection: Connection) -> int:
    return counters.read(connection, counters.RESTORE_WINDOW_S, DEFAULT_RESTORE_WINDOW_S)


def _check_age(seconds: float, what: str) -> None:
    if not 0 <= seconds <= MAX_AGE_S:
        raise UsageError(f"{what} is {seconds}; expected 0 to {MAX_AGE_S:.0f} seconds", param=what)

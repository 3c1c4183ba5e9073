"""What every catalog database promises: snapshots for readers, one writer at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from adapters_store.catalog.migrations import has_current_schema, is_catalog, migrate
from adapters_store.errors import NotFoundError, PatchbayError, UnavailableError, UsageError

LOCK_TIMEOUT_S = 30.0
IS_WRITE = "patchbay_write"


class Database(ABC):
    """Connections to one catalog, for many threads and processes.

    ``location`` names the catalog in messages and never holds a password. ``reader`` gives a
    consistent snapshot per transaction; ``writer`` is the same engine under the execution option
    ``IS_WRITE``, upon which a transaction begins by taking the catalog's write lock. Numbers over
    64 bits and text that is no Unicode raise UsageError.
    """

    def __init__(self, location: str, *, reader: Engine, writer: Engine) -> None:
        self.location = location
        self._reader = reader
        self._writer = writer

    def close(self) -> None:
        """Close every pooled connection."""
        self._reader.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot; raises UnavailableError or CorruptStoreError."""
        with self._errors(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction with the write lock from its start; commits at the end or rolls back.

        Raises UnavailableError, also where the lock is not free within ``LOCK_TIMEOUT_S``, or
        CorruptStoreError.
        """
        with self._errors(), self._writer.begin() as connection:
            yield connection

    def prepare(self, *, create: bool) -> None:
        """Make and migrate the tables where needed; every subclass calls it once when it opens.

        Raises NotFoundError where there is no catalog and ``create`` is False, UnavailableError
        where a newer release wrote it.
        """
        with self.read() as connection:
            is_made = is_catalog(connection)
            if is_made and has_current_schema(connection):
                return
        if not (is_made or create):
            raise NotFoundError(
                f"no catalog at {self.location}",
                hint="Check the location; pushing an artefact creates a store.",
            )
        with self.write() as connection:
            migrate(connection)

    @abstractmethod
    def as_typed(self, error: DBAPIError) -> PatchbayError | None:
        """The typed error of a failure of the database, or None for a defect of the caller."""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DataError, OverflowError, UnicodeEncodeError) as error:
            told = error.orig if isinstance(error, DataError) else error
            raise UsageError(f"a value is nothing that a catalog can hold: {told}") from error
        except DBAPIError as error:
            typed = self.as_typed(error)
            if typed is None:
                raise
            raise typed from error
        except PoolTimeoutError as error:
            raise UnavailableError(
                f"the catalog {self.location} cannot be used: all connections are busy"
            ) from error

"""What every blob store promises. The contract suite runs over each row of the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from adapters_store.errors import ArtefactTooLargeError, InvalidNameError
from adapters_store.names import is_digest

# A put of a blob that is there renews ``modified_at_s`` to at most this age: collect nothing that
# is younger than this and the longest publication together.
RENEW_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """One stored blob as a listing knows it; ``modified_at_s`` is the Unix time of its last put."""

    digest: str
    size_bytes: int
    modified_at_s: float


class Blobs(Protocol):
    """Bytes under their own sha256. Safe for concurrent use by threads and processes.

    Every method that takes a digest raises InvalidNameError for text that is none, and every
    method raises UnavailableError or ForbiddenError where the medium cannot be used.
    """

    @property
    def origin(self) -> Blobs:
        """The store that holds the bytes: itself, or the one that a cache stands in front of."""
        ...

    def put(self, data: bytes) -> str:
        """Store the bytes unless they are there; returns their digest ``sha256:<hex>``.

        After return the bytes survive a crash where the medium does. A damaged copy is replaced,
        and ``modified_at_s`` is at most ``RENEW_AFTER_S`` old. Raises ArtefactTooLargeError above
        the size limit.
        """
        ...

    def put_many(self, items: Iterable[bytes]) -> list[str]:
        """Store several blobs, cheaper than one by one; returns their digests in order.

        All of them are durable after return. Where it raises, some may be stored. Items are taken
        from the iterable a bounded number of bytes at a time.
        """
        ...

    def get(self, digest: str) -> bytes:
        """The bytes, verified. Raises NotFoundError if absent, CorruptStoreError if damaged."""
        ...

    def copy_to(self, digest: str, target: IO[bytes]) -> int:
        """Write the bytes to ``target`` in bounded memory; returns how many. Raises as ``get``.

        They are verified while they pass: what ``target`` holds counts only if this returns.
        """
        ...

    def size(self, digest: str) -> int | None:
        """The stored size in bytes without reading, or None if absent."""
        ...

    def delete(self, digest: str, *, put_before_s: float | None = None) -> bool:
        """Remove a blob; True where it was there.

        With ``put_before_s`` only a blob that was last put before that Unix time is removed, so
        that a concurrent put wins.
        """
        ...

    def entries(self) -> Iterator[BlobEntry]:
        """Every stored blob, in no particular order; one put or deleted meanwhile may show."""
        ...

    def uploads(self, older_than_s: float, *, remove: bool = True) -> int:
        """Remove unfinished uploads that began longer ago than that; returns how many.

        With ``remove`` False they are only counted.
        """
        ...


def check_digest(digest: str) -> str:
    """The hexadecimal part of a digest; raises InvalidNameError for anything else."""
    if not is_digest(digest):
        raise InvalidNameError(f"{digest[:100]!r} is not a digest sha256:<64 hexadecimal digits>")
    return digest.removeprefix("sha256:")


def check_size(num_bytes: int, max_bytes: int) -> None:
    """Raise ArtefactTooLargeError above the limit."""
    if num_bytes > max_bytes:
        raise ArtefactTooLargeError(f"a blob has {num_bytes} bytes; the limit is {max_bytes}")

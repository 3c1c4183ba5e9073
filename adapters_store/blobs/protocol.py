"""What every blob store promises. The contract suite runs over each row of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from adapters_store.errors import ArtefactTooLargeError, InvalidNameError
from adapters_store.names import is_digest


class Blobs(Protocol):
    """Bytes under their own sha256. Safe for concurrent use by threads."""

    def put(self, data: bytes) -> str:
        """Store the bytes unless they are there; returns their digest ``sha256:<hex>``.

        After return the bytes survive a crash where the medium does. A damaged copy is replaced.
        Raises ArtefactTooLargeError above the size limit.
        """
        ...

    def get(self, digest: str) -> bytes:
        """The bytes, verified. Raises NotFoundError if absent, CorruptStoreError if damaged."""
        ...

    def size(self, digest: str) -> int | None:
        """The stored size in bytes without reading, or None if absent."""
        ...

    def digests(self) -> Iterator[str]:
        """Every stored digest, in no particular order."""
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

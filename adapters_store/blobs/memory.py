"""Blobs in a dict: for tests and for stores that live as long as their process."""

from __future__ import annotations

from collections.abc import Iterator

from adapters_store.blobs.protocol import check_digest, check_size
from adapters_store.canonical import digest_of
from adapters_store.errors import CorruptStoreError, NotFoundError
from adapters_store.limits import DEFAULT_LIMITS


class MemoryBlobs:
    """Bytes in this process; ``max_bytes`` bounds one blob."""

    def __init__(self, *, max_bytes: int = DEFAULT_LIMITS.max_data_bytes) -> None:
        self.max_bytes = max_bytes
        self.items: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keep the bytes under their digest."""
        check_size(len(data), self.max_bytes)
        digest = digest_of(data)
        self.items[digest] = bytes(data)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes, verified; raises NotFoundError or CorruptStoreError."""
        check_digest(digest)
        data = self.items.get(digest)
        if data is None:
            raise NotFoundError(f"blob {digest} is missing")
        if digest_of(data) != digest:
            raise CorruptStoreError(f"blob {digest} is damaged: its {len(data)} bytes differ")
        return data

    def size(self, digest: str) -> int | None:
        """The size in bytes, or None if absent."""
        check_digest(digest)
        data = self.items.get(digest)
        return None if data is None else len(data)

    def digests(self) -> Iterator[str]:
        """Every digest held."""
        return iter(tuple(self.items))
